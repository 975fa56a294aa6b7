// Single emails: a message with To, Cc and Bcc of its own, each with its own outcome. They go through
// the same states as list mail: queued → sending → recorded, claimed by a running worker only.
import { sql } from 'kysely';
import type { Sender } from '../clients/senders.ts';
import type { Database, Trx } from '../database/connect.ts';
import type { JsonObject } from '../database/schema.ts';
import { enqueue, type MessageRef } from '../queue.ts';
import type { Address } from '../recipients/address.ts';
import type { Outcome } from '../smtp/signal.ts';
import type { Contexts, Template } from '../templates/registry.ts';
import { roundedDueTime } from './record.ts';

export interface NewSingle {
  client_id: number;
  template: Template;
  contexts: Contexts;
  subject: string | null;
  sender: Sender;
  recipients: { kind: 'to' | 'cc' | 'bcc'; address: Address }[];
}

/** Stores the email, its recipients and its job; returns the message's id. */
export async function createSingle(trx: Trx, email: NewSingle): Promise<string> {
  const { client_id, template, contexts, sender } = email;
  const { id } = await trx
    .insertInto('messages')
    .values({ client_id })
    .returning('id')
    .executeTakeFirstOrThrow();
  await trx
    .insertInto('single_emails')
    .values({
      client_id,
      message_id: id,
      template_key: template.key,
      template_version: template.version,
      subject: email.subject,
      shared_context: JSON.stringify(contexts.shared),
      recipient_context: JSON.stringify(contexts.recipient),
      requires_consent: template.category === 'marketing',
      sender_id: sender.id,
      sender_email: sender.email,
      sender_name: sender.name,
      sender_reply_to: sender.reply_to,
      next_attempt_at: null, // its job is added below
    })
    .execute();
  await trx
    .insertInto('message_recipients')
    .values(
      email.recipients.map(({ kind, address }, ordinal) => ({
        client_id,
        message_id: id,
        ordinal,
        kind,
        email: address.email,
        email_given: address.given,
      })),
    )
    .execute();
  await enqueue(trx, 'deliver_urgent', { client_id, message_id: id });
  return id;
}

export interface ClaimedSingle {
  id: string;
  attempts: number;
  age_seconds: number;
  claimed_at: Date;
  template_key: string;
  template_version: string;
  subject: string | null;
  contexts: Contexts;
  sender_email: string;
  sender_name: string | null;
  sender_reply_to: string | null;
  /** All of them, for the headers; only the queued ones are in the envelope. */
  recipients: { ordinal: number; kind: 'to' | 'cc' | 'bcc'; email_given: string; state: string }[];
}

/**
 * Claims a due single email. Recipients that may not be mailed become skipped first; where none is
 * left, so does the message, and nothing is returned. Undefined also where it is not due, in other
 * hands, or the worker is stopped.
 */
export function claimSingle(
  db: Database,
  worker: number,
  { client_id, message_id }: MessageRef,
): Promise<ClaimedSingle | undefined> {
  return db.transaction().execute(async (trx) => {
    const { rows: locked } = await sql<{ requires_consent: boolean }>`
      with fence as materialized (
        select from workers where id = ${worker} and stopped_at is null for share
      )
      select e.requires_consent
      from single_emails e join messages m on m.client_id = e.client_id and m.id = e.message_id
      where e.client_id = ${client_id} and e.message_id = ${message_id}
        and m.state = 'queued' and m.next_attempt_at <= now() and exists (select from fence)
      for no key update of e, m skip locked
    `.execute(trx);
    if (!locked[0]) return undefined;
    await skipIneligible(trx, { client_id, message_id }, locked[0].requires_consent);
    const { rows } = await sql<
      Omit<ClaimedSingle, 'contexts'> & { shared: JsonObject; recipient: JsonObject }
    >`
      with claimed as (
        update messages m set
          state = case when o.has_queued then 'sending' else 'skipped' end,
          reason = case when o.has_queued then null else o.reason end,
          claimed_by = case when o.has_queued then ${worker}::bigint end,
          claimed_at = case when o.has_queued then now() end,
          settled_at = case when o.has_queued then null else now() end
        from (
          select bool_or(state = 'queued') as has_queued, min(reason) filter (where state = 'skipped') as reason
          from message_recipients where client_id = ${client_id} and message_id = ${message_id}
        ) o
        where m.client_id = ${client_id} and m.id = ${message_id}
        returning m.*
      )
      update single_emails e set
        claimed_by = c.claimed_by, next_attempt_at = null
      from claimed c
      where e.client_id = c.client_id and e.message_id = c.id
      returning c.id, c.state, c.attempts, c.claimed_at,
        extract(epoch from now() - c.created_at)::float8 as age_seconds,
        e.template_key, e.template_version, e.subject, e.shared_context as shared,
        e.recipient_context as recipient, e.sender_email, e.sender_name, e.sender_reply_to,
        (select json_agg(json_build_object('ordinal', r.ordinal, 'kind', r.kind,
            'email_given', r.email_given, 'state', r.state) order by r.ordinal)
          from message_recipients r
          where r.client_id = ${client_id} and r.message_id = ${message_id}) as recipients
    `.execute(trx);
    const claimed = rows[0] as (typeof rows)[0] & { state: string };
    if (claimed.state !== 'sending') return undefined;
    const { shared, recipient, ...single } = claimed;
    return { ...single, contexts: { shared, recipient } };
  });
}

async function skipIneligible(
  trx: Trx,
  { client_id, message_id }: MessageRef,
  requiresConsent: boolean,
): Promise<void> {
  await sql`
    update message_recipients r set state = 'skipped', reason = judged.reason
    from (
      select o.ordinal,
        skip_reason(sup.reason, ${requiresConsent}, c.consent, c.unsubscribed_at, null, null) as reason
      from message_recipients o
      left join contacts c on c.client_id = o.client_id and c.email = o.email
      left join suppressions sup
        on sup.client_id = o.client_id and sup.address_hash = address_hash(o.client_id, o.email)
      where o.client_id = ${client_id} and o.message_id = ${message_id} and o.state = 'queued'
    ) judged
    where r.client_id = ${client_id} and r.message_id = ${message_id}
      and r.ordinal = judged.ordinal and judged.reason is not null
  `.execute(trx);
}

/**
 * Records what became of the recipients that were in the envelope, and of the message: queued again
 * while one of them waits, else sent where at least one was accepted, else unknown, else failed.
 * Nothing happens where the message is not in this worker's hands any more.
 */
export async function recordSingle(
  db: Database,
  worker: number,
  { client_id, message_id }: MessageRef,
  outcomes: { ordinal: number; outcome: Outcome }[],
  retryIn: number | undefined,
): Promise<void> {
  const rows = outcomes.map(({ ordinal, outcome }) => ({
    ordinal,
    state: outcome.kind === 'deferred' ? 'queued' : outcome.kind,
    reason: outcome.kind === 'sent' ? null : outcome.reason,
    reply: outcome.reply,
    suppress: outcome.kind === 'failed' && outcome.suppress,
  }));
  await db.transaction().execute(async (trx) => {
    const { rows: held } = await sql`
      select from messages
      where client_id = ${client_id} and id = ${message_id} and state = 'sending' and claimed_by = ${worker}
      for no key update
    `.execute(trx);
    if (held.length === 0) return;
    await sql`
      with outcome as (
        select * from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
          as o(ordinal smallint, state text, reason text, reply text, suppress boolean)
      ),
      settled as (
        update message_recipients r set state = o.state, reason = o.reason, last_reply = o.reply
        from outcome o
        where r.client_id = ${client_id} and r.message_id = ${message_id} and r.ordinal = o.ordinal
        returning r.client_id, r.email, o.suppress
      )
      insert into suppressions (client_id, address_hash, email, reason, note)
      select distinct client_id, address_hash(client_id, email), email, 'hard_bounce', 'refused at RCPT'
      from settled where suppress and email is not null
      on conflict do nothing
    `.execute(trx);
    await sql`
      with whole as (
        select bool_or(state = 'queued') as queued,
          case
            when bool_or(state = 'queued') then 'queued'
            when bool_or(state = 'sent') then 'sent'
            when bool_or(state = 'unknown') then 'unknown'
            else 'failed'
          end as state,
          (array_agg(reason order by ordinal) filter (where state in ('queued', 'unknown', 'failed')))[1] as reason,
          (array_agg(last_reply order by ordinal) filter (where last_reply is not null))[1] as last_reply
        from message_recipients where client_id = ${client_id} and message_id = ${message_id}
      ),
      written as (
        update messages m set
          state = whole.state,
          reason = case when whole.state <> 'sent' then whole.reason end,
          last_reply = whole.last_reply,
          attempts = m.attempts + 1,
          was_unknown = m.was_unknown or whole.state = 'unknown',
          next_attempt_at = ${roundedDueTime(sql`${retryIn ?? null}::float8`)},
          claimed_by = null,
          claimed_at = null,
          settled_at = case when not whole.queued then now() end
        from whole
        where m.client_id = ${client_id} and m.id = ${message_id}
        returning m.client_id, m.id, m.state, m.next_attempt_at
      )
      update single_emails e set
        claimed_by = null, next_attempt_at = case when w.state = 'queued' then w.next_attempt_at end
      from written w where e.client_id = w.client_id and e.message_id = w.id
    `.execute(trx);
  });
}
