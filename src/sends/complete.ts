// The end of a delivery round of a chunk: gives the lease back, and either notes when the chunk is
// due again or closes it. The send's open_chunks goes down with each chunk that closes; at 0 the
// send is completed. Lock order: send, chunk.
import { sql, type RawBuilder } from 'kysely';
import type { Trx } from '../database/connect.ts';
import { settleStrays } from '../messages/recover.ts';
import type { ChunkRef } from '../queue.ts';

/** Chunks of a send that come back together after `waitSeconds`, apart by this; the last ones share. */
const APART_SECONDS = 0.5;
const MOST_APART = 120;

/**
 * Repeatable; does nothing to a chunk that is completed, or that the worker does not hold. With
 * `waitSeconds` it is not due before, as its mail server takes nothing; the chunks of a send then come
 * back one after the other, so that thousands do not find out every second that the rate limit of a
 * second is used up.
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
  await lockSend(trx, client_id, send_id);
  if (!(await holdsLease(trx, ref, worker))) return;
  await settleStrays(trx, chunkIs(ref), worker);
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

function chunkIs({ client_id, send_id, chunk_no }: ChunkRef): RawBuilder<boolean> {
  return sql`k.client_id = ${client_id} and k.send_id = ${send_id} and k.chunk_no = ${chunk_no}`;
}

/** Whoever changes what a send counts takes its row first. */
export async function lockSend(trx: Trx, clientId: number, sendId: string): Promise<void> {
  await trx
    .selectFrom('sends')
    .select('id')
    .where('client_id', '=', clientId)
    .where('id', '=', sendId)
    .forNoKeyUpdate()
    .execute();
}

async function holdsLease(trx: Trx, ref: ChunkRef, worker: number): Promise<boolean> {
  const { rows } = await sql`
    select from send_chunks k
    where ${chunkIs(ref)} and k.leased_by = ${worker} and k.completed_at is null
    for no key update
  `.execute(trx);
  return rows.length > 0;
}
