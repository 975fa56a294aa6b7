// What a person found out about a message of which nobody knew whether it was accepted: it was, it was
// not, or it is to be sent again. The counts follow; a send that was completed is open again while one of
// its messages is. Lock order: send, chunk, message.
import { sql } from 'kysely';
import type { Trx } from '../database/connect.ts';
import { DomainError, notFound } from '../errors.ts';
import { sendIsOver } from '../sends/closing.ts';
import { lockSend } from '../sends/complete.ts';

export const RESOLUTIONS = ['sent', 'failed', 'resend'] as const;
export type Resolution = (typeof RESOLUTIONS)[number];

/** @throws not_found, message_not_unknown, send_is_over */
export async function resolveMessage(
  trx: Trx,
  clientId: number,
  id: string,
  resolution: Resolution,
): Promise<void> {
  const message = await trx
    .selectFrom('messages')
    .select(['send_id', 'position'])
    .where('client_id', '=', clientId)
    .where('id', '=', id)
    .executeTakeFirst();
  if (!message) throw notFound('The message');
  const { send_id, position } = message;
  if (send_id !== null) {
    const { closing, purged_at } = await lockSend(trx, clientId, send_id);
    if (purged_at) throw sendIsOver('purged');
    if (closing && resolution === 'resend') throw sendIsOver(closing);
  }
  const resolved =
    send_id === null
      ? await resolveSingle(trx, clientId, id, resolution)
      : await resolveMember(trx, clientId, { id, send_id, position: position! }, resolution);
  if (resolved) return;
  throw new DomainError(
    'message_not_unknown',
    'Only a message whose outcome is unknown can be resolved.',
  );
}

/** What becomes of the message's row; `m` is its alias. */
const settle = (resolution: Resolution) => sql`
  state = ${resolution === 'resend' ? 'queued' : resolution},
  reason = ${resolution === 'failed' ? 'resolved' : null},
  next_attempt_at = case when ${resolution === 'resend'} then now() else m.next_attempt_at end,
  settled_at = case when ${resolution !== 'resend'} then now() end`;

async function resolveMember(
  trx: Trx,
  clientId: number,
  { id, send_id, position }: { id: string; send_id: string; position: number },
  resolution: Resolution,
): Promise<boolean> {
  const resend = resolution === 'resend';
  const { rows } = await sql<{ reopened: boolean }>`
    with chunk as materialized (
      select client_id, send_id, chunk_no, completed_at from send_chunks
      where client_id = ${clientId} and send_id = ${send_id}
        and ${position} between first_position and last_position
      for no key update
    ),
    resolved as (
      update messages m set ${settle(resolution)}
      from chunk
      where m.client_id = ${clientId} and m.id = ${id} and m.state = 'unknown'
      returning chunk.*
    )
    update send_chunks k set
      unknown = k.unknown - 1,
      sent = k.sent + ${resolution === 'sent' ? 1 : 0},
      failed = k.failed + ${resolution === 'failed' ? 1 : 0},
      completed_at = case when ${resend} then null else k.completed_at end,
      next_attempt_at = case when ${resend} then now() else k.next_attempt_at end
    from resolved r
    where (k.client_id, k.send_id, k.chunk_no) = (r.client_id, r.send_id, r.chunk_no)
    returning ${resend} and r.completed_at is not null as reopened
  `.execute(trx);
  if (!rows[0]) return false;
  if (rows[0].reopened) {
    await sql`
      update sends set open_chunks = open_chunks + 1, completed_at = null,
        state = case when state = 'completed' then 'sending' else state end
      where client_id = ${clientId} and id = ${send_id}
    `.execute(trx);
  }
  return true;
}

/** All its recipients whose outcome is unknown; the message is unknown, or sent where others had it. */
async function resolveSingle(
  trx: Trx,
  clientId: number,
  id: string,
  resolution: Resolution,
): Promise<boolean> {
  const resend = resolution === 'resend';
  const { rows } = await sql`
    with held as materialized (
      select from single_emails
      where client_id = ${clientId} and message_id = ${id} and queue_state = 'settled'
      for no key update
    ),
    recipients as (
      update message_recipients r set
        state = ${resend ? 'queued' : resolution},
        reason = ${resolution === 'failed' ? 'resolved' : null}
      from held
      where r.client_id = ${clientId} and r.message_id = ${id} and r.state = 'unknown'
      returning r.ordinal
    ),
    resolved as (
      update messages m set ${settle(resolution)}
      where m.client_id = ${clientId} and m.id = ${id} and exists (select from recipients)
        and (m.state = 'unknown' or ${resend})
    ),
    queued as (
      update single_emails set queue_state = 'deferred', next_attempt_at = now()
      where client_id = ${clientId} and message_id = ${id} and ${resend}
        and exists (select from recipients)
    )
    select ordinal from recipients
  `.execute(trx);
  return rows.length > 0;
}
