// Makes a worker process ready to deliver: its sign of life, its SMTP pools, its recorder. Closing marks
// the row stopped, so nothing can be claimed in its name any more.
import type { CallbackPolicy } from '../callback/post.ts';
import type { Timing } from '../config.ts';
import type { Connection } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import type { Delivery } from '../messages/delivery.ts';
import { BatchWriter } from '../messages/batch-writer.ts';
import { recordOutcomes } from '../messages/record.ts';
import { recordSingles } from '../messages/record-single.ts';
import { SendComposers } from '../messages/send-composer.ts';
import { Turns } from '../messages/turns.ts';
import type { Lane } from '../queue.ts';
import { readLinkKey } from '../recipients/links.ts';
import { registerWorker } from './liveness.ts';
import { Breakers } from '../smtp/breakers.ts';
import type { TransportConfig } from '../smtp/transport-config.ts';
import { stateOfTransports } from '../smtp/choices.ts';
import { Transports } from '../smtp/transports.ts';
import { RenderPool } from '../templates/render-pool.ts';
import type { Templates } from '../templates/registry.ts';

/**
 * Connections to a mail server per process, beside those of list mail, of which the configuration has
 * 20: Postfix takes 50 from one client by default.
 */
export const URGENT_CONNECTIONS = 5;
export const SINGLES_CONNECTIONS = 5;

/**
 * Outcomes that are written together: those of all connections, or of half of them where they are many,
 * so that the others have something to do. Ten at a time cost PostgreSQL a fifth more than twenty, and
 * those, over fewer connections, a little more than forty.
 */
function batchOf(connections: number): number {
  return connections <= 20 ? connections : Math.min(40, Math.max(20, connections / 2));
}

export interface DeliveryOptions {
  connection: Connection;
  log: Logger;
  templates: Templates;
  transports: readonly TransportConfig[];
  lanes: readonly Lane[];
  timing: Timing;
  callback: CallbackPolicy;
  /** Days that messages are kept; default for ever. */
  retentionDays?: number | undefined;
  /** Base of links in mails, without a trailing slash. */
  publicUrl: string;
  /** The mailbox for those who unsubscribe by mail. */
  unsubscribeMailto?: string | undefined;
  /** How long an SMTP connection is kept for the next message; default 10 s. */
  smtpIdleMs?: number;
  /** Mails of the lane at once; default 5. */
  singlesConnections?: number;
  /** `full`: every list mail is rendered in full; to compare with. */
  rendering?: 'compiled' | 'full';
}

export interface RunningDelivery {
  delivery: Delivery;
  /** Nothing more is claimed from now on. */
  stop: () => void;
  /** Cuts the connections to mail servers: what was handed over is unknown, the rest is queued again. */
  abort: () => void;
  /** Rejects when this worker was declared dead. */
  fenced: Promise<never>;
  /** Whether we may declare others dead. */
  isSteady: () => boolean;
  /** After everything in hand is recorded. */
  close: () => Promise<void>;
}

export async function createDelivery(options: DeliveryOptions): Promise<RunningDelivery> {
  const {
    connection,
    log,
    templates,
    transports,
    lanes,
    timing,
    callback,
    retentionDays,
    publicUrl,
    unsubscribeMailto,
    smtpIdleMs,
    singlesConnections = SINGLES_CONNECTIONS,
    rendering = 'compiled',
  } = options;
  const { db } = connection;
  const linker = { key: await readLinkKey(db), baseUrl: publicUrl, mailto: unsubscribeMailto };
  const liveness = await registerWorker({ connection, log, lanes, limits: timing.liveness });
  const { worker } = liveness;
  const breakers = new Breakers(db, log, timing.breakerSeconds);
  const states = stateOfTransports(transports);
  const lane = (most: number) =>
    new Transports({
      db,
      log,
      breakers,
      states,
      connections: (config) => Math.min(config.connections, most),
      idleMs: smtpIdleMs,
    });
  const bulk = lane(Infinity);
  const urgent = lane(URGENT_CONNECTIONS);
  const singles = lane(singlesConnections);
  const stopping = new AbortController();
  const turns = new Turns();
  const renders = new RenderPool();
  return {
    delivery: {
      db,
      log,
      worker,
      templates,
      linker,
      outcomes: new BatchWriter(
        (items) => recordOutcomes(db, worker, items),
        log,
        batchOf(bulk.size),
      ),
      singleOutcomes: new BatchWriter(
        (items) => recordSingles(db, worker, items),
        log,
        batchOf(singles.size),
      ),
      retry: timing.retry,
      bulk,
      urgent,
      singles,
      turns,
      composers: new SendComposers({ linker, turns, renders, rendering }),
      callback,
      retentionDays,
      chunksInHand: new Set(),
      stopping: stopping.signal,
    },
    fenced: liveness.fenced,
    isSteady: () => liveness.isSteady(),
    stop: () => stopping.abort(),
    abort: () => {
      for (const one of [bulk, urgent, singles]) one.abort();
    },
    close: async () => {
      stopping.abort();
      await Promise.all([bulk.close(), urgent.close(), singles.close(), renders.close()]);
      await liveness.stop();
    },
  };
}
