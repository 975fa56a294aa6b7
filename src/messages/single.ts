// Single emails as messages: stored with their recipients and their job, claimed by a running worker
// only, recorded recipient by recipient. The same states as list mail: queued → sending → settled.
import { sql, type RawBuilder } from 'kysely';
import type { Sender } from '../clients/senders.ts';
import type { Database, Trx } from '../database/connect.ts';
import type { JsonObject, OnUnknown } from '../database/schema.ts';
import { enqueue, enqueueSingles, type MessageRef } from '../queue.ts';
import type { Address } from '../address.ts';
import type { Outcome } from '../smtp/signal.ts';
import type { SenderRule } from '../smtp/choices.ts';
import { onUnknownOf } from '../templates/define.ts';
import type { Template } from '../templates/registry.ts';
import { fenceOf, waitForClaims } from './claim.ts';
import { roundedDueTime } from './record.ts';

export type RecipientKind = 'to' | 'cc' | 'bcc';

export interface NewSingle {
  client_id: number;
  template: Template;
  /** The template's two contexts taken together. */
  email_data: JsonObject;
  /** Null takes the template's. */
  subject: string | null;
  /** 1 high, 2 normal, 3–10 low. */
  priority_level: number;
  email_type: string | null;
  sender: Sender;
  recipients: { kind: RecipientKind; address: Address }[];
  /** The mail carries the link by which this person confirms. */
  confirms?: { list_id: number; contact_id: number };
  idempotency?: { key: string; digest: Buffer };
}

/** Priority 1 leaves at once, by a job of its own; the rest is claimed by priority, then age. */
export const URGENT_PRIORITY = 1;

/**
 * Stores the email and its job; returns the message's id, or undefined where the idempotency key is
 * taken: the transaction must then be rolled back.
 */
export async function createSingle(trx: Trx, email: NewSingle): Promise<string | undefined> {
  const { client_id, template, sender, idempotency } = email;
  const { id } = await trx
    .insertInto('messages')
    .values({ client_id })
    .returning('id')
    .executeTakeFirstOrThrow();
  const stored = await trx
    .insertInto('single_emails')
    .values({
      client_id,
      message_id: id,
      email_type: email.email_type,
      subject: email.subject,
      template_key: template.key,
      template_version: template.version,
      email_data: JSON.stringify(email.email_data),
      priority_level: email.priority_level,
      requires_consent: template.category === 'marketing',
      on_unknown: onUnknownOf(template),
      sender_id: sender.id,
      sender_email: sender.email,
      sender_name: sender.name,
      sender_reply_to: sender.reply_to,
      idempotency_key: idempotency?.key ?? null,
      request_digest: idempotency?.digest ?? null,
      confirms_list_id: email.confirms?.list_id ?? null,
      confirms_contact_id: email.confirms?.contact_id ?? null,
    })
    .onConflict((conflict) => conflict.columns(['client_id', 'idempotency_key']).doNothing())
    .returning('message_id')
    .executeTakeFirst();
  if (!stored) return undefined;
  if (template.category === 'marketing') await addContacts(trx, client_id, email.recipients);
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
  if (email.priority_level === URGENT_PRIORITY) {
    await enqueue(trx, 'deliver_urgent', { client_id, message_id: id });
  } else {
    await enqueueSingles(trx);
  }
  return id;
}

/** Who gets marketing mail can unsubscribe, and what they decide is kept with the contact. */
async function addContacts(
  trx: Trx,
  clientId: number,
  recipients: NewSingle['recipients'],
): Promise<void> {
  const addresses = JSON.stringify(recipients.map(({ address }) => address));
  await sql`
    insert into contacts (client_id, email, email_given)
    select ${clientId}, r.email, r.given
    from jsonb_to_recordset(${addresses}::jsonb) as r(email text, given text)
    order by r.email -- as the upsert of members does: neither waits for the other in a circle
    on conflict (client_id, email) do nothing
  `.execute(trx);
}

export interface ClaimedSingle extends MessageRef {
  attempts: number;
  /** Since the message was made, in seconds of database time. */
  age_seconds: number;
  was_unknown: boolean;
  on_unknown: OnUnknown;
  claimed_at: Date;
  template_key: string;
  template_version: string;
  subject: string | null;
  email_data: JsonObject;
  priority_level: number;
  requires_consent: boolean;
  confirms_list_id: number | null;
  confirms_contact_id: number | null;
  sender_email: string;
  sender_name: string | null;
  sender_reply_to: string | null;
  /** Those that are mailed, now or before; only the queued ones are in the envelope. */
  recipients: SingleRecipient[];
}

export interface SingleRecipient {
  ordinal: number;
  kind: RecipientKind;
  email_given: string;
  state: string;
  /** Null where the address is no contact. */
  contact_id: number | null;
}

/** One email, whatever its priority. */
export function thisSingle({ client_id, message_id }: MessageRef): RawBuilder<boolean> {
  return sql`e.client_id = ${client_id} and e.message_id = ${message_id}`;
}

/** All that have a job of their own. */
export const anyUrgent: RawBuilder<boolean> = sql`e.priority_level = ${URGENT_PRIORITY}`;

/** All that have no job of their own. */
export const anySingle: RawBuilder<boolean> = sql`e.priority_level > ${URGENT_PRIORITY}`;

/** Those of senders whose mail the rule lets go. */
export function isServed({ patterns, except }: SenderRule): RawBuilder<boolean> {
  const sender = sql`lower(e.sender_email)`;
  const like = patterns?.map((pattern) => pattern.replace(/[\\%_]/gu, '\\$&').replaceAll('*', '%'));
  const among = like ? sql`${sender} like any (${like}::text[])` : sql`true`;
  return except.length > 0
    ? sql<boolean>`(${among} and ${sender} <> all (${[...except]}::text[]))`
    : sql<boolean>`${among}`;
}

/** Of one pass: the rest is put off by the next, and costs nothing before. */
const MOST_PUT_OFF = 500;

/** They come back one after the other: all at once they would only be put off again. */
const APART_SECONDS = 0.02;

/** Due emails, the next ones first, become due again in so many seconds. None was tried. */
export async function putOffSingles(
  db: Database,
  which: RawBuilder<boolean>,
  seconds: number,
): Promise<void> {
  await sql`
    with off as materialized (
      select client_id, message_id,
        now() + make_interval(secs => ${seconds}::float8 + ${APART_SECONDS}::float8 * (
          row_number() over (order by priority_level, queued_at) - 1)) as due_at
      from (
        select e.client_id, e.message_id, e.priority_level, e.queued_at
        from single_emails e
        where e.queue_state = 'due' and ${which}
        order by e.priority_level, e.queued_at
        limit ${MOST_PUT_OFF}
        for no key update skip locked
      ) due
    ),
    message as (
      update messages m set next_attempt_at = off.due_at
      from off where m.client_id = off.client_id and m.id = off.message_id
    )
    update single_emails e set queue_state = 'deferred', next_attempt_at = off.due_at
    from off where e.client_id = off.client_id and e.message_id = off.message_id
  `.execute(db);
}

/**
 * Claims due emails, by priority, then age. Recipients that may not be mailed become skipped in the
 * same statement; where none is left the message is settled, as what its recipients were before, and is
 * not returned.
 */
export async function claimSingles(
  db: Database,
  worker: number,
  claimId: string,
  which: RawBuilder<boolean>,
  limit: number,
): Promise<{ claimed: ClaimedSingle[]; skipped: number }> {
  const { rows } = await sql<ClaimedSingle & { state: string }>`
    with fence as materialized (${fenceOf(worker)}),
    picked as materialized (
      select e.client_id, e.message_id, e.requires_consent
      from single_emails e
      where e.queue_state = 'due' and ${which} and exists (select from fence)
      order by e.priority_level, e.queued_at
      limit ${limit}
      for no key update skip locked
    ),
    judged as materialized (
      select p.client_id, p.message_id, r.ordinal, r.kind, r.email_given, r.state, c.id as contact_id,
        r.reason as earlier_reason,
        case
          when r.state <> 'queued' then null
          when r.email is null then 'suppressed' -- erased since
          else skip_reason(suppression.reason, p.requires_consent, c.consent,
            coalesce(c.unsubscribed_at, suppression.unsubscribed_at), null, null)
        end as reason
      from picked p
      join message_recipients r on r.client_id = p.client_id and r.message_id = p.message_id
      left join lateral (
        select id, consent, unsubscribed_at from contacts
        where client_id = p.client_id and email = r.email limit 1
      ) c on true
      left join lateral (
        select reason, unsubscribed_at from suppressions
        where client_id = p.client_id and address_hash = address_hash(p.client_id, r.email) limit 1
      ) suppression on true
    ),
    skipped as (
      update message_recipients r set state = 'skipped', reason = j.reason
      from judged j
      where r.client_id = j.client_id and r.message_id = j.message_id and r.ordinal = j.ordinal
        and j.reason is not null
    ),
    verdict as (
      select client_id, message_id,
        case
          when bool_or(state = 'queued' and reason is null) then 'sending'
          when bool_or(state = 'sent') then 'sent'
          when bool_or(state = 'unknown') then 'unknown'
          when bool_or(state = 'failed') then 'failed'
          else 'skipped'
        end as state,
        (array_agg(coalesce(reason, earlier_reason) order by state = 'failed' desc, ordinal)
          filter (where reason is not null or earlier_reason is not null))[1] as reason,
        json_agg(json_build_object('ordinal', ordinal, 'kind', kind, 'email_given', email_given,
          'state', state, 'contact_id', contact_id) order by ordinal)
          filter (where reason is null and state <> 'skipped' and email_given is not null) as recipients
      from judged group by client_id, message_id
    ),
    claimed as (
      update messages m set
        state = v.state,
        reason = case when v.state not in ('sending', 'sent') then v.reason end,
        claimed_by = case when v.state = 'sending' then ${worker}::bigint end,
        claimed_at = case when v.state = 'sending' then now() end,
        settled_at = case when v.state <> 'sending' then now() end
      from verdict v
      where m.client_id = v.client_id and m.id = v.message_id
      returning m.client_id, m.id, m.state, m.attempts, m.claimed_at, m.created_at, m.was_unknown,
        v.recipients
    )
    update single_emails e set
      queue_state = case when c.state = 'sending' then 'claimed' else 'settled' end,
      claimed_by = case when c.state = 'sending' then ${worker}::bigint end,
      claim_id = case when c.state = 'sending' then ${claimId}::uuid end
    from claimed c
    where e.client_id = c.client_id and e.message_id = c.id
    returning e.client_id, e.message_id, c.state, c.attempts, c.claimed_at, c.was_unknown, e.on_unknown,
      extract(epoch from now() - c.created_at)::float8 as age_seconds,
      e.template_key, e.template_version, e.subject, e.email_data, e.priority_level,
      e.requires_consent, e.confirms_list_id, e.confirms_contact_id,
      e.sender_email, e.sender_name, e.sender_reply_to, c.recipients
  `.execute(db);
  const claimed = rows.filter((row) => row.state === 'sending');
  return { claimed, skipped: rows.length - claimed.length };
}

/** Gives back what a statement claimed whose answer was lost: it has met no mail server. */
export async function handBackSingles(trx: Trx, worker: number, claimId: string): Promise<void> {
  await waitForClaims(trx, worker);
  await sql`
    with back as (
      update single_emails set queue_state = 'due', claimed_by = null, claim_id = null
      where queue_state = 'claimed' and claim_id = ${claimId}
      returning client_id, message_id
    )
    update messages m set state = 'queued', claimed_by = null, claimed_at = null
    from back where m.client_id = back.client_id and m.id = back.message_id
  `.execute(trx);
}

export interface SingleOutcome extends MessageRef {
  /** Of the recipients that were in the envelope. */
  recipients: { ordinal: number; outcome: Outcome; again: boolean }[];
  /** Seconds until the next try, where one of them is tried again. */
  retryIn?: number | undefined;
  /** Others of its recipients are still to come: the email stays in hand. */
  more?: boolean;
}

/**
 * Records any number of emails in one statement. A message is queued again while one recipient
 * waits, else sent where at least one was accepted, else unknown, else failed. With `more` only its
 * recipients are written down. Nothing is recorded over what is not in this worker's hands any more.
 */
export async function recordSingles(
  db: Database,
  worker: number,
  outcomes: readonly SingleOutcome[],
): Promise<void> {
  const rows = outcomes.flatMap(({ client_id, message_id, recipients, retryIn, more = false }) =>
    recipients.map(({ ordinal, outcome, again }) => ({
      client_id,
      message_id,
      ordinal,
      state: again ? 'queued' : outcome.kind,
      unknown: outcome.kind === 'unknown',
      tries: outcome.kind === 'held' ? 0 : 1,
      reason: outcome.kind === 'sent' ? null : outcome.reason,
      reply: outcome.reply,
      suppress: outcome.kind === 'failed' && outcome.suppress,
      retry_in: retryIn ?? null,
      more,
    })),
  );
  await sql`
    with outcome as materialized (
      select * from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as o(
        client_id integer, message_id uuid, ordinal smallint, state text, unknown boolean, tries integer, reason text,
        reply text, suppress boolean, retry_in float8, more boolean)
    ),
    held as materialized (
      select m.client_id, m.id as message_id
      from messages m
      where (m.client_id, m.id) in (select client_id, message_id from outcome)
        and m.state = 'sending' and m.claimed_by = ${worker}
      order by m.client_id, m.id
      for no key update
    ),
    recorded as (
      update message_recipients r set state = o.state, reason = o.reason, last_reply = o.reply
      from outcome o join held using (client_id, message_id)
      where r.client_id = o.client_id and r.message_id = o.message_id and r.ordinal = o.ordinal
      returning r.client_id, r.email, o.suppress
    ),
    suppressed as (
      insert into suppressions (client_id, address_hash, email, reason, note)
      select distinct client_id, address_hash(client_id, email), email, 'hard_bounce', 'refused at RCPT'
      from recorded where suppress and email is not null
      on conflict (client_id, address_hash) do update set
        reason = excluded.reason, note = excluded.note, email = excluded.email, updated_at = now()
      where suppressions.reason is null
    ),
    after as (
      select r.client_id, r.message_id, r.ordinal,
        coalesce(o.state, r.state) as state,
        case when o.state is null then r.reason else o.reason end as reason,
        coalesce(o.reply, r.last_reply) as reply, o.retry_in, coalesce(o.unknown, false) as unknown, o.tries, o.more
      from held
      join message_recipients r using (client_id, message_id)
      left join outcome o using (client_id, message_id, ordinal)
    ),
    whole as (
      select client_id, message_id, max(retry_in) as retry_in, bool_or(unknown) as unknown, max(tries) as tries,
        case
          when bool_or(state = 'queued') then 'queued'
          when bool_or(state = 'sent') then 'sent'
          when bool_or(state = 'unknown') then 'unknown'
          else 'failed'
        end as state,
        (array_agg(reason order by ordinal) filter (where state in ('queued', 'unknown', 'failed')))[1] as reason,
        (array_agg(reply order by state <> 'queued', ordinal) filter (where reply is not null))[1] as reply
      from after group by client_id, message_id
      having not bool_or(coalesce(more, false))
    ),
    written as (
      update messages m set
        state = w.state,
        reason = case when w.state <> 'sent' then w.reason end,
        last_reply = w.reply,
        attempts = m.attempts + w.tries,
        was_unknown = m.was_unknown or w.unknown,
        next_attempt_at = ${roundedDueTime(sql`w.retry_in`)},
        claimed_by = null,
        claimed_at = null,
        settled_at = case when w.state <> 'queued' then now() end
      from whole w
      where m.client_id = w.client_id and m.id = w.message_id
      returning m.client_id, m.id, m.state, m.next_attempt_at
    )
    update single_emails e set
      queue_state = case when w.state = 'queued' then 'deferred' else 'settled' end,
      next_attempt_at = case when w.state = 'queued' then w.next_attempt_at end,
      claimed_by = null,
      claim_id = null
    from written w where e.client_id = w.client_id and e.message_id = w.id
  `.execute(db);
}
