// Records outcomes of single emails, recipient by recipient; what becomes of the message follows from
// theirs. Nothing is recorded over what somebody else settled.
import { sql } from 'kysely';
import type { Database } from '../database/connect.ts';
import type { MessageRef } from '../queue.ts';
import type { Outcome } from '../smtp/signal.ts';
import { roundedDueTime } from './record.ts';

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
