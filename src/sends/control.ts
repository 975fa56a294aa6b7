// What a client does to a send after its trigger: pause, resume, cancel, try failed ones again. Each
// transaction takes the send's row first, so several callers and the workers agree on one order; each
// call is repeatable. Cancelling sets the state at once, the counts follow chunk by chunk.
import { sql } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import type { SendState } from '../database/schema.ts';
import { notFound } from '../errors.ts';
import { enqueue, type SendRef } from '../queue.ts';
import { closingOf, sendIsOver, type Closing } from './closing.ts';

interface Controlled {
  state: SendState;
  open_chunks: number | null;
  closing: Closing | null;
  purged_at: Date | null;
}

/** @throws not_found */
async function lockForControl(trx: Trx, { client_id, send_id }: SendRef): Promise<Controlled> {
  const send = await trx
    .selectFrom('sends as s')
    .select(['s.state', 's.open_chunks', 's.purged_at', closingOf('s').as('closing')])
    .where('s.client_id', '=', client_id)
    .where('s.id', '=', send_id)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!send) throw notFound('The send');
  return send;
}

/** What is in hand is finished; nothing more is claimed. @throws not_found, send_is_over */
export async function pauseSend(trx: Trx, ref: SendRef): Promise<void> {
  const { state, closing } = await lockForControl(trx, ref);
  if (closing) throw sendIsOver(closing);
  if (state === 'completed') throw sendIsOver(state);
  await setState(trx, ref, sql`'paused'`);
}

/** @throws not_found, send_is_over */
export async function resumeSend(trx: Trx, ref: SendRef): Promise<void> {
  const { state, closing } = await lockForControl(trx, ref);
  if (closing) throw sendIsOver(closing);
  if (state === 'completed') throw sendIsOver(state);
  if (state !== 'paused') return;
  await setState(
    trx,
    ref,
    sql`case
      when open_chunks is not null then 'sending'
      when scheduled_at > now() then 'scheduled'
      else 'queued' end`,
  );
  await wakeSend(trx, ref);
}

/** What is in hand is finished; the rest becomes skipped. @throws not_found, send_is_over */
export async function cancelSend(trx: Trx, ref: SendRef): Promise<void> {
  const { state } = await lockForControl(trx, ref);
  if (state === 'completed') throw sendIsOver(state);
  if (state === 'cancelled') return;
  await setState(trx, ref, sql`'cancelled'`);
  await wakeSend(trx, ref);
}

async function setState(trx: Trx, ref: SendRef, state: ReturnType<typeof sql>): Promise<void> {
  await sql`
    update sends set state = ${state} where client_id = ${ref.client_id} and id = ${ref.send_id}
  `.execute(trx);
}

/** Makes due what takes an open send further, whatever its state: wake_due adds the jobs of its chunks. */
export async function wakeSend(trx: Trx, { client_id, send_id }: SendRef): Promise<void> {
  const send = await trx
    .selectFrom('sends as s')
    .select(['s.open_chunks', 's.state', closingOf('s').as('closing')])
    .where('s.client_id', '=', client_id)
    .where('s.id', '=', send_id)
    .executeTakeFirstOrThrow();
  if (send.state === 'scheduled' && !send.closing) return;
  if (send.open_chunks === null) return enqueue(trx, 'expand_send', { client_id, send_id });
  await sql`
    update send_chunks set next_attempt_at =
      case when ${send.closing}::text is null then coalesce(next_attempt_at, now()) else now() end
    where client_id = ${client_id} and send_id = ${send_id}
      and completed_at is null and leased_by is null
  `.execute(trx);
}

/** Of one transaction: some 10,000 members. */
const CHUNKS_AT_ONCE = 20;

/**
 * Queues again what has failed, but for addresses that do not exist; missing contexts are fetched
 * again. The retry window of the whole send starts anew. In several transactions, so that workers go on
 * meanwhile; what was cut short is finished by the next call.
 * @returns how many @throws not_found, send_is_over
 */
export async function retryFailed(db: Database, ref: SendRef): Promise<number> {
  let retried = 0;
  for (let after: number | null = 0; after !== null;) {
    const from: number = after;
    const batch = await db.transaction().execute((trx) => retryChunks(trx, ref, from));
    retried += batch.retried;
    after = batch.last;
  }
  return retried;
}

/** The next chunks after that one. @returns the last of them; null at the end */
async function retryChunks(
  trx: Trx,
  ref: SendRef,
  after: number,
): Promise<{ retried: number; last: number | null }> {
  const { closing, purged_at } = await lockForControl(trx, ref);
  if (closing) throw sendIsOver(closing);
  if (purged_at) throw sendIsOver('purged');
  const { client_id, send_id } = ref;
  const { rows } = await sql<{ retried: number; reopened: number; last: number | null }>`
    with chunk as materialized (
      select client_id, send_id, chunk_no, first_position, last_position, completed_at
      from send_chunks
      where client_id = ${client_id} and send_id = ${send_id} and failed > 0 and chunk_no > ${after}
      order by chunk_no
      limit ${CHUNKS_AT_ONCE}
      for no key update
    ),
    retried as (
      update messages m set
        state = 'queued', settled_at = null, next_attempt_at = now(), attempts_at_retry = m.attempts
      from chunk k
      where m.client_id = k.client_id and m.send_id = k.send_id
        and m.position between k.first_position and k.last_position
        and m.state = 'failed' and m.reason <> 'hard_bounce'
      returning k.chunk_no, k.completed_at, m.reason in ('context_missing', 'context_invalid') as to_fetch
    ),
    by_chunk as (
      select chunk_no, completed_at, count(*) as failed, bool_or(to_fetch) as to_fetch
      from retried group by chunk_no, completed_at
    ),
    tallied as (
      update send_chunks k set
        failed = k.failed - t.failed, completed_at = null, next_attempt_at = now(),
        prepared_at = case when not t.to_fetch then k.prepared_at end,
        fetched_to = case when not t.to_fetch then k.fetched_to end,
        fetch_attempts = 0, fetch_failing_since = null
      from by_chunk t
      where k.client_id = ${client_id} and k.send_id = ${send_id} and k.chunk_no = t.chunk_no
    )
    select coalesce(sum(failed), 0)::integer as retried,
      count(completed_at)::integer as reopened,
      (select max(chunk_no) from chunk) as last
    from by_chunk
  `.execute(trx);
  const { retried, reopened, last } = rows[0]!;
  if (retried === 0) return { retried, last };
  await sql`
    update sends set
      retried_at = now(), open_chunks = open_chunks + ${reopened}, completed_at = null,
      state = case when state = 'completed' then 'sending' else state end
    where client_id = ${client_id} and id = ${send_id}
  `.execute(trx);
  return { retried, last };
}
