// Makes a worker process ready to deliver: its sign of life, its SMTP pools, its recorder. Closing marks the row stopped, so nothing can be claimed in its name any more.
import type { Timing } from '../config.ts';
import type { Connection } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import type { Delivery } from '../messages/delivery.ts';
import { BatchWriter } from '../messages/batch-writer.ts';
import { recordOutcomes } from '../messages/record.ts';
import { recordSingles } from '../messages/single.ts';
import { Turns } from '../messages/turns.ts';
import type { Lane } from '../queue.ts';
import { registerWorker } from './liveness.ts';
import { parseSmtpUrl, SmtpPool } from '../smtp/transport.ts';
import type { Templates } from '../templates/registry.ts';

/** Connections to the mail server per process: Postfix takes 50 from one client by default. */
export const BULK_CONNECTIONS = 20;
export const URGENT_CONNECTIONS = 5;
export const SINGLES_CONNECTIONS = 5;

export interface DeliveryOptions {
  connection: Connection;
  log: Logger;
  templates: Templates;
  smtpUrl: string;
  lanes: readonly Lane[];
  timing: Timing;
  /** How long an SMTP connection is kept for the next message; default 10 s. */
  smtpIdleMs?: number;
  /** Mails of the lane at once; default 5. */
  singlesConnections?: number;
}

export interface RunningDelivery {
  delivery: Delivery;
  /** Nothing more is claimed from now on. */
  stop: () => void;
  /** Rejects when this worker was declared dead. */
  fenced: Promise<never>;
  /** After everything in hand is recorded. */
  close: () => Promise<void>;
}

export async function createDelivery(options: DeliveryOptions): Promise<RunningDelivery> {
  const {
    connection,
    log,
    templates,
    smtpUrl,
    lanes,
    timing,
    smtpIdleMs,
    singlesConnections = SINGLES_CONNECTIONS,
  } = options;
  const { db } = connection;
  const liveness = await registerWorker({ connection, log, lanes, limits: timing.liveness });
  const { worker } = liveness;
  const smtp = parseSmtpUrl(smtpUrl);
  const bulk = new SmtpPool(smtp, BULK_CONNECTIONS, log, smtpIdleMs);
  const urgent = new SmtpPool(smtp, URGENT_CONNECTIONS, log, smtpIdleMs);
  const singles = new SmtpPool(smtp, singlesConnections, log, smtpIdleMs);
  const stopping = new AbortController();
  return {
    delivery: {
      db,
      log,
      worker,
      templates,
      outcomes: new BatchWriter((items) => recordOutcomes(db, worker, items), log),
      singleOutcomes: new BatchWriter((items) => recordSingles(db, worker, items), log),
      retry: timing.retry,
      bulk,
      urgent,
      singles,
      turns: new Turns(),
      chunksInHand: new Set(),
      stopping: stopping.signal,
    },
    fenced: liveness.fenced,
    stop: () => stopping.abort(),
    close: async () => {
      stopping.abort();
      bulk.close();
      urgent.close();
      singles.close();
      await liveness.stop();
    },
  };
}
