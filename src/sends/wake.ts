// Puts jobs where work is due. wake_due runs every few seconds and adds what has a due time;
// reconcile runs every minute and adds what has neither a job nor a due time, so a job that was
// deleted, failed for good or never added costs a minute, not a mail.
import { sql } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import { findPause } from '../messages/pause.ts';
import { URGENT_PRIORITY } from '../messages/single.ts';
import {
  TASK_NAMES,
  enqueue,
  enqueueChunks,
  enqueueSingles,
  type ChunkRef,
  type MessageRef,
  type SendRef,
} from '../queue.ts';

/** Of one pass: keeps the transaction short; the next pass comes in seconds. */
const MOST_PER_PASS = 1000;

/** @returns how many jobs were added; none while delivery is paused, as they would find nothing */
export async function wakeDue(db: Database): Promise<number> {
  if (await findPause(db)) return 0;
  const chunks = await wakeChunks(db);
  const singles = await wakeSingles(db);
  return chunks + singles;
}

function wakeChunks(db: Database): Promise<number> {
  return db.transaction().execute(async (trx) => {
    // Locked sends and chunks are in somebody's hands: they are left for the next pass.
    const { rows } = await sql<ChunkRef>`
      with due as (
        select k.client_id, k.send_id, k.chunk_no
        from send_chunks k join sends s on s.client_id = k.client_id and s.id = k.send_id
        where k.completed_at is null and k.next_attempt_at <= now() and k.leased_by is null
          and s.state = 'sending'
        order by k.next_attempt_at
        limit ${MOST_PER_PASS}
        for no key update of k skip locked
      )
      update send_chunks k set next_attempt_at = null
      from due
      where k.client_id = due.client_id and k.send_id = due.send_id and k.chunk_no = due.chunk_no
      returning k.client_id, k.send_id, k.chunk_no
    `.execute(trx);
    if (rows.length > 0) await enqueueChunks(trx, 'deliver_chunk', chunkList(rows));
    return rows.length;
  });
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
  const prepared = await reconcileChunks(db, 'prepare_chunk');
  const delivered = await reconcileChunks(db, 'deliver_chunk');
  const singles = await reconcileSingles(db);
  return expanded + prepared + delivered + singles;
}

/**
 * A job that runs, or will soon. One that gave up (25 attempts), or that failed so often that it waits for
 * hours (graphile-worker's backoff), is as good as none: adding it again starts it anew.
 */
const willRun = sql`(
  j.locked_at is not null
  or j.attempts < j.max_attempts and j.run_at < now() + interval '1 minute')`;

const noJob = (key: ReturnType<typeof sql>) => sql`
  not exists (select from graphile_worker.jobs j where j.key = ${key} and ${willRun})`;

/**
 * Frees jobs locked by a pool that no running worker has: its process was killed before it was noted.
 * The graphile-worker command line is such a pool, too; a job of its that runs for so long runs twice,
 * which does no harm.
 */
async function unlockOrphans(db: Database): Promise<void> {
  await sql`
    select graphile_worker.force_unlock_workers(array(
      select distinct j.locked_by from graphile_worker.jobs j
      where j.locked_at < now() - interval '1 minute'
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
      where s.completed_at is null and s.state = 'queued'
        and ${noJob(sql`'expand_send:' || s.client_id || ':' || s.id`)}
      limit ${MOST_PER_PASS}
    `.execute(trx);
    for (const row of rows) await enqueue(trx, 'expand_send', row);
    return rows.length;
  });
}

function reconcileChunks(db: Database, task: 'prepare_chunk' | 'deliver_chunk'): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<ChunkRef>`
      select k.client_id, k.send_id, k.chunk_no
      from sends s join send_chunks k on k.client_id = s.client_id and k.send_id = s.id
      where s.completed_at is null and s.state = 'sending'
        and k.completed_at is null and k.next_attempt_at is null and k.leased_by is null
        and k.prepared_at is ${task === 'prepare_chunk' ? sql`null` : sql`not null`}
        and ${noJob(sql`${task} || ':' || k.client_id || ':' || k.send_id || ':' || k.chunk_no`)}
      limit ${MOST_PER_PASS}
    `.execute(trx);
    if (rows.length > 0) await enqueueChunks(trx, task, chunkList(rows));
    return rows.length;
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
           where j.task_identifier = 'deliver_singles' and ${willRun})
       limit 1)
    `.execute(trx);
    return enqueueEmails(trx, rows);
  });
}
