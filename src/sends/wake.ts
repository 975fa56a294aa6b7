// Puts jobs where work is due. wake_due runs every few seconds and adds what has a due time;
// reconcile runs every minute and adds what has neither a job nor a due time, so a job that was
// deleted, failed for good or never added costs a minute, not a mail.
import { sql, type RawBuilder } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import { findPause } from '../messages/pause.ts';
import { URGENT_PRIORITY } from '../messages/create-single.ts';
import {
  MOST_FETCHES,
  TASK_NAMES,
  enqueue,
  enqueueChunks,
  enqueueFetches,
  enqueueSingles,
  noJob,
  TAKEN_LONG,
  willRun,
  type ChunkRef,
  type MessageRef,
  type SendRef,
} from '../queue.ts';
import { closingOf } from './closing.ts';
import { wakeSend } from './control.ts';

type ChunkTask = 'prepare_chunk' | 'fetch_contexts' | 'deliver_chunk';

/** What a chunk `k` of the send `s` needs next. */
const taskOfChunk = sql<ChunkTask>`case
  when k.prepared_at is not null then 'deliver_chunk'
  when s.callback_url is not null and ${closingOf('s')} is null then 'fetch_contexts'
  else 'prepare_chunk' end`;

const isClosing = sql<boolean>`${closingOf('s')} is not null`;

/** Its chunks are worked on. */
const isMoving = sql<boolean>`(s.state = 'sending' or ${isClosing})`;

/** Of one pass: keeps the transaction short; the next pass comes in seconds. */
const MOST_PER_PASS = 1000;

/** @returns how many jobs were added; while delivery is paused none that would find nothing */
export async function wakeDue(db: Database): Promise<number> {
  const sends = await wakeSends(db);
  const paused = await findPause(db);
  const chunks = await wakeChunks(db, paused ? isClosing : isMoving);
  if (paused) return sends + chunks;
  await wakeFetches(db);
  const singles = await wakeSingles(db);
  return sends + chunks + singles;
}

/** Those whose time to begin, or to end, has come. */
function wakeSends(db: Database): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<SendRef>`
      with beginning as (
        select client_id, id from sends
        where state = 'scheduled' and scheduled_at <= now()
        order by scheduled_at limit ${MOST_PER_PASS} for no key update skip locked
      ),
      ending as (
        select client_id, id from sends
        where completed_at is null and expired_at is null and expires_at <= now()
        order by expires_at limit ${MOST_PER_PASS} for no key update skip locked
      ),
      due as (select * from beginning union select * from ending)
      update sends s set
        state = case when s.state = 'scheduled' and s.scheduled_at <= now() then 'queued' else s.state end,
        expired_at = case when s.expires_at <= now() then now() end
      from due where s.client_id = due.client_id and s.id = due.id
      returning s.client_id, s.id as send_id
    `.execute(trx);
    for (const row of rows) await wakeSend(trx, row);
    return rows.length;
  });
}

function wakeChunks(db: Database, which: RawBuilder<boolean>): Promise<number> {
  return db.transaction().execute(async (trx) => {
    // Locked sends and chunks are in somebody's hands: they are left for the next pass.
    const { rows } = await sql<ChunkRef & { task: ChunkTask }>`
      with due as (
        select k.client_id, k.send_id, k.chunk_no, ${taskOfChunk} as task
        from send_chunks k join sends s on s.client_id = k.client_id and s.id = k.send_id
        where k.completed_at is null and k.next_attempt_at <= now() and k.leased_by is null
          and ${which}
          and ${taskOfChunk} <> 'fetch_contexts'
          -- Only new ones: many jobs of which some run cannot be added to without deadlocks, as graphile-worker
          -- completes many at once. The next pass looks again.
          and ${noJob(sql`${taskOfChunk} || ':' || k.client_id || ':' || k.send_id || ':' || k.chunk_no`)}
        order by k.next_attempt_at
        limit ${MOST_PER_PASS}
        for no key update of k skip locked
      )
      update send_chunks k set next_attempt_at = null
      from due
      where k.client_id = due.client_id and k.send_id = due.send_id and k.chunk_no = due.chunk_no
      returning k.client_id, k.send_id, k.chunk_no, due.task
    `.execute(trx);
    return enqueueTasks(trx, rows);
  });
}

/** Whoever fetches takes the due ones until there is none; until then they stay due. */
function wakeFetches(db: Database): Promise<void> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ client_id: number }>`
      select distinct k.client_id
      from send_chunks k join sends s on s.client_id = k.client_id and s.id = k.send_id
      where k.completed_at is null and k.next_attempt_at <= now() and k.leased_by is null
        and ${isMoving} and ${taskOfChunk} = 'fetch_contexts'
    `.execute(trx);
    for (const { client_id } of rows) await enqueueFetches(trx, client_id);
  });
}

async function enqueueTasks(trx: Trx, rows: (ChunkRef & { task: ChunkTask })[]): Promise<number> {
  for (const task of ['prepare_chunk', 'deliver_chunk'] as const) {
    const chunks = rows.filter((row) => row.task === task);
    if (chunks.length > 0) await enqueueChunks(trx, task, chunkList(chunks));
  }
  const fetches = rows.filter((row) => row.task === 'fetch_contexts');
  for (const clientId of new Set(fetches.map((row) => row.client_id)))
    await enqueueFetches(trx, clientId);
  return rows.length;
}

function chunkList(rows: ChunkRef[]) {
  return sql`
    select client_id, send_id, chunk_no from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
      as due(client_id integer, send_id uuid, chunk_no integer)`;
}

function wakeSingles(db: Database): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<MessageRef & { urgent: boolean }>`
      with due as (
        select client_id, message_id from single_emails
        where queue_state = 'deferred' and next_attempt_at <= now()
        order by next_attempt_at
        limit ${MOST_PER_PASS}
        for no key update skip locked
      )
      update single_emails e set queue_state = 'due', next_attempt_at = null
      from due where e.client_id = due.client_id and e.message_id = due.message_id
      returning e.client_id, e.message_id, e.priority_level = ${URGENT_PRIORITY} as urgent
    `.execute(trx);
    return enqueueEmails(trx, rows);
  });
}

async function enqueueEmails(
  trx: Trx,
  rows: (MessageRef & { urgent: boolean })[],
): Promise<number> {
  const urgent = rows.filter((row) => row.urgent);
  for (const { client_id, message_id } of urgent)
    await enqueue(trx, 'deliver_urgent', { client_id, message_id });
  if (urgent.length < rows.length) await enqueueSingles(trx);
  return rows.length;
}

/** @returns how many jobs were added */
export async function reconcile(db: Database): Promise<number> {
  await unlockOrphans(db);
  await freeOrphanedChunks(db);
  await removeSuperseded(db);
  const expanded = await reconcileSends(db);
  const chunks = await reconcileChunks(db);
  const singles = await reconcileSingles(db);
  return expanded + chunks + singles;
}

/**
 * Frees jobs locked by a pool that no running worker has: its process was killed before it was noted.
 * The graphile-worker command line is such a pool, too; a job of its that runs for so long runs twice,
 * which does no harm.
 */
async function unlockOrphans(db: Database): Promise<void> {
  await sql`
    select graphile_worker.force_unlock_workers(array(
      select distinct j.locked_by from graphile_worker.jobs j
      where j.locked_at < now() - interval '20 seconds'
        and not exists (
          select from workers w where w.stopped_at is null and j.locked_by = any (w.pool_ids))))
  `.execute(db);
}

/** A lease that was taken in the moment its worker was declared dead: nobody else looks after it. */
async function freeOrphanedChunks(db: Database): Promise<void> {
  await sql`
    update send_chunks k set leased_by = null, next_attempt_at = now()
    from workers w
    where k.leased_by = w.id and w.recovered_at is not null
  `.execute(db);
}

/** What graphile-worker leaves of a job that was added anew while it ran: no key, and given up. */
async function removeSuperseded(db: Database): Promise<void> {
  await sql`
    select graphile_worker.complete_jobs(array(
      select id from graphile_worker.jobs
      where key is null and locked_at is null and attempts >= max_attempts
        and task_identifier = any (${TASK_NAMES}::text[])))
  `.execute(db);
}

function reconcileSends(db: Database): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<SendRef>`
      select s.client_id, s.id as send_id from sends s
      where s.completed_at is null and s.open_chunks is null
        and (s.state = 'queued' or ${closingOf('s')} is not null)
        and ${noJob(sql`'expand_send:' || s.client_id || ':' || s.id`)}
      limit ${MOST_PER_PASS}
    `.execute(trx);
    for (const row of rows) await enqueue(trx, 'expand_send', row);
    return rows.length;
  });
}

function reconcileChunks(db: Database): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<ChunkRef & { task: ChunkTask }>`
      select k.client_id, k.send_id, k.chunk_no, k.task
      from sends s
      cross join lateral (
        select k.client_id, k.send_id, k.chunk_no, ${taskOfChunk} as task
        from send_chunks k
        where k.client_id = s.client_id and k.send_id = s.id
          and k.completed_at is null and k.next_attempt_at is null and k.leased_by is null
      ) k
      where s.completed_at is null and ${isMoving}
        and case when k.task = 'fetch_contexts'
          then ${noJob(
            sql`any (array(
            select 'fetch_contexts:' || k.client_id || ':' || n from generate_series(0, ${MOST_FETCHES - 1}::integer) n))`,
            TAKEN_LONG,
          )}
          else ${noJob(sql`k.task || ':' || k.client_id || ':' || k.send_id || ':' || k.chunk_no`)}
        end
      limit ${MOST_PER_PASS}
    `.execute(trx);
    return enqueueTasks(trx, rows);
  });
}

function reconcileSingles(db: Database): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<MessageRef & { urgent: boolean }>`
      (select e.client_id, e.message_id, true as urgent
       from single_emails e
       where e.queue_state = 'due' and e.priority_level = ${URGENT_PRIORITY}
         and ${noJob(sql`'deliver_urgent:' || e.client_id || ':' || e.message_id`)}
       order by e.queued_at limit ${MOST_PER_PASS})
      union all
      (select e.client_id, e.message_id, false
       from single_emails e
       where e.queue_state = 'due' and e.priority_level > ${URGENT_PRIORITY}
         and not exists (
           select from graphile_worker.jobs j
           where j.task_identifier = 'deliver_singles' and ${willRun()})
       limit 1)
    `.execute(trx);
    return enqueueEmails(trx, rows);
  });
}
