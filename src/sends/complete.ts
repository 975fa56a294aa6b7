// The end of a delivery round of a chunk: gives the lease back, and either notes when the chunk is
// due again or closes it. The send's open_chunks goes down with each chunk that closes; at 0 the
// send is completed. Lock order: send, chunk.
import { sql } from 'kysely';
import type { Trx } from '../database/connect.ts';
import type { ChunkRef } from '../queue.ts';

/** Chunks of a send that come back together after `waitSeconds`, apart by this; the last ones share. */
const APART_SECONDS = 0.5;
const MOST_APART = 120;

/**
 * Repeatable; does nothing to a chunk that is completed, or that the worker does not hold. With `waitSeconds` it is not due before, as
 * its mail server takes nothing; the chunks of a send then come back one after the other, so that
 * thousands do not find out every second that the rate limit of a second is used up.
 */
export async function settleChunk(
  trx: Trx,
  ref: ChunkRef,
  worker: number,
  waitSeconds?: number,
): Promise<void> {
  const { client_id, send_id, chunk_no } = ref;
  const notBefore =
    waitSeconds === undefined
      ? sql`now()`
      : sql`now() + make_interval(secs => ${waitSeconds}::float8 + ${APART_SECONDS}::float8 * (
          select count(*) from (
            select from send_chunks earlier
            where earlier.client_id = k.client_id and earlier.send_id = k.send_id
              and earlier.chunk_no < k.chunk_no and earlier.completed_at is null
            limit ${MOST_APART}
          ) ahead))`;
  await trx
    .selectFrom('sends')
    .select('id')
    .where('client_id', '=', client_id)
    .where('id', '=', send_id)
    .forNoKeyUpdate()
    .execute();
  if (!(await holdsLease(trx, ref, worker))) return;
  await settleStrays(trx, ref, worker);
  const { rows } = await sql<{ closed: boolean }>`
    update send_chunks k set
      leased_by = null,
      completed_at = case when q.queued = 0 then now() end,
      next_attempt_at = case when q.queued > 0 then (
        select greatest(coalesce(min(m.next_attempt_at), now()), ${notBefore}) from messages m
        where m.client_id = k.client_id and m.send_id = k.send_id
          and m.position between k.first_position and k.last_position and m.state = 'queued'
      ) end
    from (
      select last_position - first_position + 1 - sent - failed - skipped - unknown as queued
      from send_chunks
      where client_id = ${client_id} and send_id = ${send_id} and chunk_no = ${chunk_no}
        and completed_at is null and prepared_at is not null and leased_by = ${worker}
    ) q
    where k.client_id = ${client_id} and k.send_id = ${send_id} and k.chunk_no = ${chunk_no}
    returning q.queued = 0 as closed
  `.execute(trx);
  if (!rows[0]?.closed) return;
  await sql`
    update sends set
      open_chunks = open_chunks - 1,
      completed_at = case when open_chunks = 1 then now() end,
      state = case when open_chunks = 1 and state <> 'cancelled' then 'completed' else state end
    where client_id = ${client_id} and id = ${send_id}
  `.execute(trx);
}

async function holdsLease(trx: Trx, ref: ChunkRef, worker: number): Promise<boolean> {
  const { rows } = await sql`
    select from send_chunks
    where client_id = ${ref.client_id} and send_id = ${ref.send_id} and chunk_no = ${ref.chunk_no}
      and leased_by = ${worker} and completed_at is null
    for no key update
  `.execute(trx);
  return rows.length > 0;
}

/**
 * At the end of a round nothing of the chunk is in anybody's hands. What is `sending` all the same was
 * claimed by a statement of ours whose answer was lost, and has met no mail server; or by a worker that
 * lost the chunk, and nobody knows.
 */
async function settleStrays(trx: Trx, ref: ChunkRef, worker: number): Promise<void> {
  await sql`
    with chunk as (
      select k.client_id, k.send_id, k.chunk_no, k.first_position, k.last_position, s.on_unknown
      from send_chunks k join sends s on s.client_id = k.client_id and s.id = k.send_id
      where k.client_id = ${ref.client_id} and k.send_id = ${ref.send_id} and k.chunk_no = ${ref.chunk_no}
        and k.last_position - k.first_position + 1 > k.sent + k.failed + k.skipped + k.unknown
    ),
    verdict as (
      select m.ctid as row, m.claimed_by = ${worker} as ours,
        m.claimed_by = ${worker} or chunk.on_unknown = 'retry' and not m.was_unknown as again
      from chunk join messages m
        on m.client_id = chunk.client_id and m.send_id = chunk.send_id
        and m.position between chunk.first_position and chunk.last_position
      where m.state = 'sending'
      for no key update of m
    ),
    settled as (
      update messages m set
        state = case when v.again then 'queued' else 'unknown' end,
        settled_at = case when not v.again then now() end,
        reason = case when v.ours then m.reason else 'worker_died' end,
        was_unknown = m.was_unknown or not v.ours,
        attempts = m.attempts + case when v.ours then 0 else 1 end,
        claimed_by = null, claimed_at = null
      from verdict v where m.ctid = v.row
      returning m.state
    )
    update send_chunks k set unknown = k.unknown + t.unknown
    from (select count(*) filter (where state = 'unknown') as unknown from settled) t
    where k.client_id = ${ref.client_id} and k.send_id = ${ref.send_id} and k.chunk_no = ${ref.chunk_no}
      and t.unknown > 0
  `.execute(trx);
}
