// A worker's sign of life: its row in `workers`, a heartbeat in database time, and an advisory lock held
// by a session of its own, so that a killed process is noticed at once. A worker that another one has
// declared dead is fenced: its row says so, every claim needs the row, and the process has to end.
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { sql } from 'kysely';
import pg from 'pg';
import type { Liveness as Limits } from '../config.ts';
import type { Connection } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import { WORKER_LOCK } from '../messages/recover.ts';
import type { Lane } from '../queue.ts';

const STEADY_BEATS = 2;

export interface Liveness {
  /** Our row's id. */
  worker: number;
  /** Rejects when this worker was declared dead. */
  readonly fenced: Promise<never>;
  /**
   * True where our own signs of life were given for a while: after an outage of the database all look
   * dead to each other, and whoever is back first must wait for the rest.
   */
  isSteady(): boolean;
  /** When nothing is in hand any more: nothing can be claimed in our name from now on. */
  stop(): Promise<void>;
}

export interface LivenessOptions {
  connection: Connection;
  log: Logger;
  lanes: readonly Lane[];
  limits: Limits;
}

export async function registerWorker(options: LivenessOptions): Promise<Liveness> {
  const { connection, log, lanes, limits } = options;
  const { db } = connection;
  const { rows } = await sql<{ id: number }>`
    select nextval(pg_get_serial_sequence('workers', 'id')) as id`.execute(db);
  const worker = rows[0]!.id;
  let session = await openSession(connection, worker, limits);
  const { pid } = session;
  // The lock is held before the row says that it should be.
  await db
    .insertInto('workers')
    .values({
      id: worker,
      hostname: hostname(),
      pid: process.pid,
      lanes: [...lanes],
      application_name: connection.applicationName,
      heartbeat_seconds: limits.heartbeatMs / 1000,
      dead_after_seconds: limits.deadAfterMs / 1000,
    })
    .execute();
  // Not only after the first beat: behind a pooler in transaction mode nothing here would hold.
  await db.transaction().execute(() => beat(session, worker, pid));

  const stopping = new AbortController();
  const fence = Promise.withResolvers<never>();
  fence.promise.catch(() => undefined);

  let steadySince = performance.now();
  let lastBeat = performance.now();
  const keepBeating = async () => {
    let open = true;
    for (;;) {
      await pause(limits.heartbeatMs, undefined, { signal: stopping.signal, ref: false });
      try {
        if (!open) session = await openSession(connection, worker, limits);
        if (!(await beat(session, worker, session.pid))) return fence.reject(new Fenced(worker));
        // Late is as bad as failed: a process that was suspended finds everybody else's beats old, too.
        if (!open || performance.now() - lastBeat > STEADY_BEATS * limits.heartbeatMs)
          steadySince = performance.now();
        lastBeat = performance.now();
        open = true;
      } catch (error) {
        if (stopping.signal.aborted) return undefined;
        log.warn({ worker, error: (error as Error).message }, 'no sign of life was given');
        open = false;
        steadySince = performance.now();
        session.client.end().catch(() => undefined);
        if (await isStopped(connection, worker)) return fence.reject(new Fenced(worker));
      }
    }
  };
  const beating = keepBeating().catch(() => undefined); // ends by the signal

  return {
    worker,
    fenced: fence.promise,
    isSteady: () => {
      const now = performance.now();
      const steady = STEADY_BEATS * limits.heartbeatMs;
      return now - steadySince > steady && now - lastBeat < steady;
    },
    stop: async () => {
      stopping.abort();
      await beating;
      await db
        .updateTable('workers')
        .set({ stopped_at: sql`now()` })
        .where('id', '=', worker)
        .where('stopped_at', 'is', null)
        .execute();
      await session.client.end().catch(() => undefined);
    },
  };
}

/** A process that learns this must end: what it had in hand was settled by others. */
export class Fenced extends Error {
  constructor(worker: number) {
    super(
      `worker ${worker} was declared dead by another one: it gave no sign of life for too long`,
    );
    this.name = 'Fenced';
  }
}

/** A pooler gives each transaction another session: locks and fences would mean nothing. */
export class SharedSession extends Error {
  constructor() {
    super(
      'the connection is not our own: connect to PostgreSQL directly, or through a pooler in session mode',
    );
    this.name = 'SharedSession';
  }
}

interface Session {
  client: pg.Client;
  /** Of its backend. */
  pid: number;
  /** Not while an earlier session is still there, such as a half-open one. */
  holdsLock: boolean;
}

/** A session of its own, for the worker's lock. */
async function openSession(
  { url, applicationName }: Connection,
  worker: number,
  { heartbeatMs }: Limits,
): Promise<Session> {
  const timeout = Math.max(2 * heartbeatMs, 1000);
  const client = new pg.Client({
    connectionString: url,
    application_name: `${applicationName} liveness`,
    connectionTimeoutMillis: timeout,
    query_timeout: timeout,
    keepAlive: true,
  });
  client.on('error', () => undefined); // the next beat meets it
  await client.connect();
  (client as pg.Client & { unref(): void }).unref(); // missing in the types
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
  const session = { client, pid: rows[0]!.pid, holdsLock: false };
  await takeLock(session, worker);
  return session;
}

async function takeLock(session: Session, worker: number): Promise<void> {
  const { rows } = await session.client.query<{ taken: boolean }>(
    'select pg_try_advisory_lock($1, $2) as taken',
    [WORKER_LOCK, worker],
  );
  session.holdsLock = rows[0]!.taken;
}

/** False where the worker was declared dead. @throws where the session is not ours alone */
async function beat(session: Session, worker: number, pid: number): Promise<boolean> {
  const { client } = session;
  if (!session.holdsLock) await takeLock(session, worker);
  const { rows } = await client.query<{ pid: number }>(
    `update workers set heartbeat_at = now() where id = $1 and stopped_at is null
     returning pg_backend_pid() as pid`,
    [worker],
  );
  if (rows[0] && rows[0].pid !== pid) {
    throw new SharedSession();
  }
  return rows.length > 0;
}

async function isStopped({ db }: Connection, worker: number): Promise<boolean> {
  const row = await db
    .selectFrom('workers')
    .select('stopped_at')
    .where('id', '=', worker)
    .executeTakeFirst()
    .catch(() => ({ stopped_at: null })); // nobody can have written it either
  return row?.stopped_at !== null;
}

/** Unlike any other process's: the sessions of a dead worker are ended by this name. */
export function workerApplicationName(): string {
  return `rosterpost worker ${randomUUID().slice(0, 13)}`;
}
