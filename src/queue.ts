// What graphile-worker is asked to do: task names, payloads, lanes, and enqueueing inside our own
// transactions. A job is only a wake-up: each task looks at the rows and does what is left, so a
// job that runs twice, late or never costs time, not correctness (reconcile adds what is missing).
import { sql, type RawBuilder } from 'kysely';
import * as v from 'valibot';
import type { Trx } from './database/connect.ts';

const clientId = v.pipe(v.number(), v.integer());
const uuid = v.pipe(v.string(), v.uuid());

export const SendRef = v.object({ client_id: clientId, send_id: uuid });
export type SendRef = v.InferOutput<typeof SendRef>;

export const ChunkRef = v.object({ ...SendRef.entries, chunk_no: v.pipe(v.number(), v.integer()) });
export type ChunkRef = v.InferOutput<typeof ChunkRef>;

export const MessageRef = v.object({ client_id: clientId, message_id: uuid });
export type MessageRef = v.InferOutput<typeof MessageRef>;

/** One of the few jobs that drain single emails; which one is of no meaning. */
export const SinglesRef = v.object({ drain: v.pipe(v.number(), v.integer()) });
export type SinglesRef = v.InferOutput<typeof SinglesRef>;

/** One of the few jobs that fetch contexts from a client. */
export const FetchRef = v.object({ client_id: clientId, drain: v.pipe(v.number(), v.integer()) });
export type FetchRef = v.InferOutput<typeof FetchRef>;

export interface TaskPayloads {
  expand_send: SendRef;
  fetch_contexts: FetchRef;
  prepare_chunk: ChunkRef;
  deliver_chunk: ChunkRef;
  deliver_urgent: MessageRef;
  deliver_singles: SinglesRef;
  wake_due: Record<string, never>;
  reconcile: Record<string, never>;
  purge: Record<string, never>;
}

export type TaskName = keyof TaskPayloads;

/**
 * Lanes are separate runners, each with its own slots, so that work of one kind never waits for
 * another: with one runner an urgent mail waited 1.4 s behind bulk chunks, with its own 3 ms.
 */
export const LANES = {
  urgent: ['deliver_urgent'],
  singles: ['deliver_singles'],
  prepare: ['expand_send', 'prepare_chunk'],
  callback: ['fetch_contexts'],
  bulk: ['deliver_chunk'],
  upkeep: ['wake_due', 'reconcile', 'purge'],
} as const satisfies Record<string, readonly TaskName[]>;

export type Lane = keyof typeof LANES;
export const TASK_NAMES: readonly TaskName[] = Object.values(LANES).flat();
export const LANE_NAMES = Object.keys(LANES) as Lane[];

/** How long a job may be taken before it counts for lost, where nobody has what it is for in hand. */
const TAKEN = '20 seconds';
/** graphile-worker's own: for a job that may take long, with nothing that shows it is in hand. */
export const TAKEN_LONG = '4 hours';

/**
 * A job that runs, or will soon. One that gave up (25 attempts), or that failed so often that it waits for
 * hours (graphile-worker's backoff), is as good as none: adding it again starts it anew. So is one that was
 * taken a while ago: its worker may have lost the connection before it was told.
 */
export function willRun(takenFor = TAKEN): RawBuilder<boolean> {
  return sql`(
    j.locked_at > now() - ${takenFor}::interval
    or j.locked_at is null and j.attempts < j.max_attempts and j.run_at < now() + interval '1 minute')`;
}

/** There is none of that key. */
export function noJob(key: RawBuilder<unknown>, takenFor?: string): RawBuilder<boolean> {
  return sql`not exists (
    select from graphile_worker.jobs j where j.key = ${key} and ${willRun(takenFor)})`;
}

/** Under contention add_jobs can skip a row whose job is being locked; a second call replaces it. */
const TRIES = 10;

/** Wakes a task for one object; a waiting job with the same object is replaced, not doubled. */
export async function enqueue<
  Task extends 'expand_send' | 'fetch_contexts' | 'deliver_urgent' | 'deliver_singles',
>(trx: Trx, task: Task, payload: TaskPayloads[Task]): Promise<void> {
  const key = `${task}:${Object.values(payload).join(':')}`;
  for (let left = TRIES; left > 0; left--) {
    const { rows } = await sql<{ id: number | null }>`
      select (graphile_worker.add_job(${task}, payload => ${JSON.stringify(payload)}::json, job_key => ${key})).id
    `.execute(trx);
    if (typeof rows[0]?.id === 'number') return;
  }
  throw new Error(`job ${key} could not be added`);
}

/** Jobs that drain single emails at once, at most, on all machines together. */
const DRAINS = 4;

/**
 * Wakes the delivery of single emails that have no job of their own. There are only a few such jobs,
 * because graphile-worker looks through its whole backlog for every lane: 100,000 waiting jobs cost
 * each fetch of another lane 50 ms.
 */
export async function enqueueSingles(trx: Trx): Promise<void> {
  await enqueue(trx, 'deliver_singles', { drain: Math.floor(Math.random() * DRAINS) });
}

/** Calls to one client at once, on all machines together. */
export const MOST_FETCHES = 4;

/**
 * Wakes the fetching of contexts from a client: each of these jobs takes chunk after chunk. One that
 * waits or runs is left alone; what it might miss stays due.
 */
export async function enqueueFetches(trx: Trx, clientId: number): Promise<void> {
  const { rows } = await sql<{ drain: number }>`
    select drain from generate_series(0, ${MOST_FETCHES - 1}::integer) drain
    where ${noJob(sql`'fetch_contexts:' || ${clientId}::integer || ':' || drain`, TAKEN_LONG)}
  `.execute(trx);
  for (const { drain } of rows)
    await enqueue(trx, 'fetch_contexts', { client_id: clientId, drain });
}

/**
 * Wakes a task for many chunks in one statement: 2,000 take about 60 ms. `chunks` selects client_id,
 * send_id, chunk_no. A later chunk gets a worse priority, by log2 of its number: a send of ten
 * members is not stuck behind a million-member one, and every send's first chunks come first.
 */
export async function enqueueChunks(
  trx: Trx,
  task: 'prepare_chunk' | 'deliver_chunk',
  chunks: RawBuilder<unknown>,
): Promise<void> {
  for (let left = TRIES, wanted = chunks; left > 0; left--) {
    const { rows: skipped } = await sql<ChunkRef>`
      with chunk as materialized (
        select client_id, send_id, chunk_no,
          ${task} || ':' || client_id || ':' || send_id || ':' || chunk_no as key
        from (${wanted}) wanted
      ),
      spec as (
        select array_agg(row(
          ${task}::text,
          json_build_object('client_id', client_id, 'send_id', send_id, 'chunk_no', chunk_no),
          null, null, null, key, (10 + floor(log(2, chunk_no)))::smallint, null
        )::graphile_worker.job_spec order by key) as specs -- who adds the same jobs waits, in no circle
        from chunk
      ),
      added as materialized (
        select job.key from spec, graphile_worker.add_jobs(spec.specs) job where spec.specs is not null
      )
      select client_id, send_id, chunk_no from chunk where key not in (select key from added)
    `.execute(trx);
    if (skipped.length === 0) return;
    wanted = sql`
      select client_id, send_id, chunk_no from jsonb_to_recordset(${JSON.stringify(skipped)}::jsonb)
        as skipped(client_id integer, send_id uuid, chunk_no integer)`;
  }
  throw new Error(`some ${task} jobs could not be added`);
}
