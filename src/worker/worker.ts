// A worker: one graphile-worker runner per lane, in one process, over one connection pool. Stopping
// takes no new work, finishes what is in hand and records it.
import { EventEmitter } from 'node:events';
import {
  Logger as GraphileLogger,
  parseCronItems,
  run,
  type Runner,
  type Task,
  type TaskList,
  type WorkerEvents,
} from 'graphile-worker';
import deliverChunk from '../../tasks/deliver_chunk.ts';
import deliverSingles from '../../tasks/deliver_singles.ts';
import deliverUrgent from '../../tasks/deliver_urgent.ts';
import expandSend from '../../tasks/expand_send.ts';
import fetchContexts from '../../tasks/fetch_contexts.ts';
import prepareChunk from '../../tasks/prepare_chunk.ts';
import purge from '../../tasks/purge.ts';
import reconcile from '../../tasks/reconcile.ts';
import wakeDueTask from '../../tasks/wake_due.ts';
import { sql } from 'kysely';
import { connect, type Connection, type Database } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import { declareDeadWorkers, recoverStopped } from '../messages/recover.ts';
import { LANE_NAMES, LANES, type Lane, type TaskName } from '../queue.ts';
import { wakeDue } from '../sends/wake.ts';
import { createDelivery, type DeliveryOptions } from './delivery.ts';
import { workerApplicationName } from './liveness.ts';
import { runWith } from './runtime.ts';

const TASKS: Record<TaskName, Task> = {
  expand_send: expandSend,
  fetch_contexts: fetchContexts,
  prepare_chunk: prepareChunk,
  deliver_chunk: deliverChunk,
  deliver_urgent: deliverUrgent,
  deliver_singles: deliverSingles,
  wake_due: wakeDueTask,
  reconcile,
  purge,
};

/** Jobs of a lane that run at once in one process. */
const SLOTS: Record<Lane, number> = {
  urgent: 8,
  singles: 4,
  prepare: 2,
  callback: 8, // two slow clients' worth: they wait for answers only
  bulk: 4,
  upkeep: 1,
};
/** Every minute. */
const CRON: Partial<Record<Lane, TaskName[]>> = { upkeep: ['reconcile', 'purge'] };
const WAKE_MS = 1000;
/** For what was cut to be recorded. */
const RECORD_MS = 5000;

/** Connections the worker's pool needs at most: a listener per lane, a slot's query each, upkeep. */
const CONNECTIONS = 20;
/** A worker's statements take milliseconds. */
const QUERY_MS = 20_000;

/** A pool as a worker needs it, for itself alone. */
export function connectWorker(url: string, log: Logger): Connection {
  return connect({
    url,
    log,
    max: CONNECTIONS,
    byKey: true,
    applicationName: workerApplicationName(),
    queryTimeoutMs: QUERY_MS,
  });
}

export interface WorkerOptions extends Omit<DeliveryOptions, 'lanes'> {
  lanes?: readonly Lane[];
}

/** graphile-worker gives a lane up where the database refuses it for long; a new process is needed. */
export class LaneEnded extends Error {
  constructor() {
    super('a lane ended by itself: the database was away for too long');
    this.name = 'LaneEnded';
  }
}

export interface Worker {
  /** Settles when the worker has ended; rejects where it ended by itself. */
  readonly ended: Promise<void>;
  /**
   * Finishes what is in hand and records it; after the grace period, or when told to hurry, cuts what a
   * mail server has not answered. Repeatable. @throws where the database takes no record of it
   */
  stop(hurry?: AbortSignal): Promise<void>;
}

export async function startWorker(options: WorkerOptions): Promise<Worker> {
  const { connection, log, lanes = LANE_NAMES } = options;
  const {
    delivery,
    fenced,
    isSteady,
    stop: stopClaiming,
    abort,
    close,
  } = await createDelivery({ ...options, lanes });
  const { db, worker } = delivery;
  const inDelivery =
    (task: Task): Task =>
    (payload, helpers) =>
      runWith(delivery, () => task(payload, helpers));
  const runners: Runner[] = [];
  const events: WorkerEvents = new EventEmitter();
  // At once: a job that is locked by a pool nobody knows stays locked when the process is killed.
  const noted: Promise<unknown>[] = [];
  events.on('pool:create', ({ workerPool }) => noted.push(notePool(db, worker, workerPool.id)));
  for (const lane of lanes) {
    const taskList: TaskList = Object.fromEntries(
      LANES[lane].map((name) => [name, inDelivery(TASKS[name])]),
    );
    runners.push(
      await run({
        pgPool: connection.pool,
        taskList,
        concurrency: SLOTS[lane],
        noHandleSignals: true,
        parsedCronItems: parseCronItems(
          (CRON[lane] ?? []).map((task) => ({ task, match: '* * * * *' })),
        ),
        logger: graphileLogger(log, lane),
        events,
        // Without batches a completion is not waited for: a stop leaves its job locked, a lost connection
        // ends the process.
        preset: { worker: { completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
      }),
    );
  }
  await Promise.all(noted);
  const sweep = async () => {
    if (isSteady()) await declareDeadWorkers(db, worker, log);
    await recoverStopped(db, log);
  };
  const upkeep = [repeat('dead workers', sweep, WAKE_MS, log)];
  if (lanes.includes('upkeep')) upkeep.push(repeat('due work', () => wakeDue(db), WAKE_MS, log));
  log.info({ worker, lanes }, 'worker started');

  let stopped: Promise<void> | undefined;
  const finish = async () => {
    stopClaiming();
    for (const one of upkeep) one.stop();
    // One that has ended by itself cannot be stopped again.
    await Promise.allSettled(runners.map((runner) => runner.stop()));
    await Promise.all(upkeep.map((one) => one.done));
    await close();
    log.info({ worker }, 'worker stopped');
  };
  const stop = (hurry?: AbortSignal) =>
    (stopped ??= inTime(finish, abort, options.timing.shutdownGraceMs, hurry));
  // A runner that ends without being told has lost its database for good, or met a bug.
  const ended = Promise.race([fenced, ...runners.map((runner) => runner.promise)]).then(
    () => stopped ?? Promise.reject(new LaneEnded()),
  );
  ended.catch(() => undefined);
  return { ended, stop };
}

function notePool(db: Database, worker: number, poolId: string): Promise<unknown> {
  return sql`
    update workers set pool_ids = array_append(pool_ids, ${poolId}::text) where id = ${worker}
  `.execute(db);
}

/** Runs `finish`, with `abort` after the grace period or at once when told to hurry. */
async function inTime(
  finish: () => Promise<void>,
  abort: () => void,
  graceMs: number,
  hurry: AbortSignal | undefined,
): Promise<void> {
  const overdue = Promise.withResolvers<never>();
  const cut = () => {
    abort();
    timers.push(
      setTimeout(
        () => overdue.reject(new Error('what was in hand could not be recorded: others settle it')),
        RECORD_MS,
      ),
    );
  };
  const timers = [setTimeout(cut, graceMs)];
  hurry?.addEventListener('abort', cut, { once: true });
  if (hurry?.aborted) cut();
  try {
    await Promise.race([finish(), overdue.promise]);
  } finally {
    for (const timer of timers) clearTimeout(timer);
    hurry?.removeEventListener('abort', cut);
  }
}

/** Calls `work` again and again, one call at a time, until stopped. */
function repeat(
  what: string,
  work: () => Promise<unknown>,
  everyMs: number,
  log: Logger,
): { stop(): void; done: Promise<void> } {
  const stopping = new AbortController();
  const loop = async () => {
    while (!stopping.signal.aborted) {
      await work().catch((error: Error) =>
        log.warn({ error: error.message }, `${what}: not looked after`),
      );
      await pause(everyMs, stopping.signal);
    }
  };
  return { stop: () => stopping.abort(), done: loop() };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

const LEVELS = { error: 'error', warning: 'warn', info: 'debug', debug: 'trace' } as const;

function graphileLogger(log: Logger, lane: Lane): GraphileLogger {
  return new GraphileLogger((scope) => (level, message) => {
    log[LEVELS[level as keyof typeof LEVELS] ?? 'debug']({ lane, job: scope.jobId }, message);
  });
}
