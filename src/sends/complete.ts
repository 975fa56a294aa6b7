// The end of a delivery round of a chunk: gives the lease back, and either notes when the chunk is
// due again or closes it. The send's open_chunks goes down with each chunk that closes; at 0 the
// send is completed. In a send that is closing nothing stays queued. Lock order: send, chunk, messages.
import { sql, type RawBuilder } from 'kysely';
import type { Trx } from '../database/connect.ts';
import { settleStrays } from '../messages/recover.ts';
import type { ChunkRef } from '../queue.ts';
import { closeQueued, closingOf, type Closing } from './closing.ts';
import { makeMessages } from './make-messages.ts';

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
  const { closing } = await lockSend(trx, ref.client_id, ref.send_id);
  if (!(await lockChunk(trx, ref, sql`k.leased_by = ${worker}`))) return;
  await settleStrays(trx, chunkIs(ref), worker);
  if (closing) await closeQueued(trx, ref, closing);
  await endRound(trx, ref, waitSeconds);
}

/** Gives up what is queued in a chunk that nobody holds, prepared or not, of a send that is closing. */
export async function closeChunk(trx: Trx, ref: ChunkRef): Promise<void> {
  const send = await lockSend(trx, ref.client_id, ref.send_id);
  if (!send.closing) return;
  const chunk = await lockChunk(trx, ref, sql`k.leased_by is null`);
  if (!chunk) return;
  await closeQueued(trx, ref, send.closing);
  if (chunk.prepared_at === null) await makeMessages(trx, ref, send, send.closing);
  await endRound(trx, ref);
}

export interface LockedSend {
  list_id: number;
  requires_consent: boolean;
  closing: Closing | null;
  purged_at: Date | null;
}

/** Whoever changes what a send counts takes its row first. */
export function lockSend(trx: Trx, clientId: number, sendId: string): Promise<LockedSend> {
  return trx
    .selectFrom('sends as s')
    .select(['s.list_id', 's.requires_consent', 's.purged_at', closingOf('s').as('closing')])
    .where('s.client_id', '=', clientId)
    .where('s.id', '=', sendId)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow();
}

function chunkIs({ client_id, send_id, chunk_no }: ChunkRef): RawBuilder<boolean> {
  return sql`k.client_id = ${client_id} and k.send_id = ${send_id} and k.chunk_no = ${chunk_no}`;
}

/** Undefined where the chunk is completed, or not as `which` says. */
async function lockChunk(
  trx: Trx,
  ref: ChunkRef,
  which: RawBuilder<unknown>,
): Promise<{ prepared_at: Date | null } | undefined> {
  const { rows } = await sql<{ prepared_at: Date | null }>`
    select k.prepared_at from send_chunks k
    where ${chunkIs(ref)} and ${which} and k.completed_at is null
    for no key update
  `.execute(trx);
  return rows[0];
}

/** The chunk is locked, and nothing of it is in anybody's hands. */
async function endRound(trx: Trx, ref: ChunkRef, waitSeconds?: number): Promise<void> {
  const { client_id, send_id } = ref;
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
  const queued = sql`last_position - first_position + 1 - sent - failed - skipped - unknown`;
  const { rows } = await sql<{ closed: boolean }>`
    update send_chunks k set
      leased_by = null,
      completed_at = case when ${queued} = 0 then now() end,
      next_attempt_at = case
        when ${queued} = 0 then null
        when k.prepared_at is null then now()
        else (
          select least(greatest(coalesce(min(m.next_attempt_at), now()), ${notBefore}), s.expires_at)
          from messages m
          where m.client_id = k.client_id and m.send_id = k.send_id
            and m.position between k.first_position and k.last_position and m.state = 'queued')
      end
    from sends s
    where ${chunkIs(ref)} and s.client_id = k.client_id and s.id = k.send_id
    returning k.completed_at is not null as closed
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
