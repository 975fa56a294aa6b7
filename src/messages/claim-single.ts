// The claim of single emails, by a running worker only, and what takes it back: put off while their mail
// server takes nothing, handed back where the claim's answer was lost. The same states as list mail:
// queued → sending → settled.
import { sql, type RawBuilder } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import type { JsonObject, OnUnknown } from '../database/schema.ts';
import type { MessageRef } from '../queue.ts';
import type { SenderRule } from '../smtp/choices.ts';
import { fenceOf, waitForClaims } from './claim.ts';
import { URGENT_PRIORITY, type RecipientKind } from './create-single.ts';

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
 * same statement, or unknown where the message may have been delivered; where none is left the message is settled, as what its recipients were before, and is
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
        r.reason as earlier_reason, case when m.was_unknown then 'unknown' else 'skipped' end as instead,
        case
          when r.state <> 'queued' then null
          when r.email is null then 'suppressed' -- erased since
          else skip_reason(suppression.reason, p.requires_consent, c.consent,
            coalesce(c.unsubscribed_at, suppression.unsubscribed_at), null, null)
        end as reason
      from picked p
      join message_recipients r on r.client_id = p.client_id and r.message_id = p.message_id
      cross join lateral (
        select was_unknown from messages where client_id = p.client_id and id = p.message_id limit 1
      ) m
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
      update message_recipients r set state = j.instead, reason = j.reason
      from judged j
      where r.client_id = j.client_id and r.message_id = j.message_id and r.ordinal = j.ordinal
        and j.reason is not null
    ),
    verdict as (
      select client_id, message_id,
        case
          when bool_or(state = 'queued' and reason is null) then 'sending'
          when bool_or(state = 'sent') then 'sent'
          when bool_or(state = 'unknown' or reason is not null and instead = 'unknown') then 'unknown'
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
