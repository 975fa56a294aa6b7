-- One definition of who may be mailed, and the views people and BI tools read.

-- Why a member gets no mail, or null where it may be mailed. The first reason that applies, in the
-- order of the contract. Asked when messages are made and again at the moment of sending.
create function skip_reason(
  suppression text, requires_consent boolean,
  contact_consent text, contact_unsubscribed_at timestamptz,
  member_consent text, list_unsubscribed_at timestamptz
) returns text
language sql immutable parallel safe
as $$
  select case
    when suppression = 'hard_bounce' then 'hard_bounce'
    when suppression = 'complaint' then 'complaint'
    when suppression = 'manual' then 'suppressed'
    when not requires_consent then null
    when contact_unsubscribed_at is not null or list_unsubscribed_at is not null
      or contact_consent = 'unsubscribed' or member_consent = 'unsubscribed' then 'unsubscribed'
    when contact_consent = 'pending' or member_consent = 'pending' then 'consent_pending'
  end
$$;
comment on function skip_reason is 'The reason a member is skipped for, null where it may be mailed.';

create schema reporting;
comment on schema reporting is 'Views for people and BI tools. Their columns are a promise; the tables behind them are not.';

create view reporting.send_counts with (security_invoker = true) as
select
  c.key as client_key,
  s.id as send_id,
  s.send_key,
  s.list_key,
  s.template_key,
  s.state,
  s.intended,
  s.intended - t.sent - t.failed - t.skipped - t.unknown as queued,
  t.sent,
  t.failed,
  t.skipped,
  t.unknown,
  s.created_at,
  s.completed_at
from sends s
join clients c on c.id = s.client_id
cross join lateral (
  select
    coalesce(sum(sent), 0)::integer as sent,
    coalesce(sum(failed), 0)::integer as failed,
    coalesce(sum(skipped), 0)::integer as skipped,
    coalesce(sum(unknown), 0)::integer as unknown
  from send_chunks k
  where k.client_id = s.client_id and k.send_id = s.id
) t;
comment on view reporting.send_counts is 'Counts per send, from the chunks'' tallies: at most a few thousand rows a send. intended = queued + sent + failed + skipped + unknown.';
comment on column reporting.send_counts.client_key is 'The client.';
comment on column reporting.send_counts.send_id is 'The send''s id.';
comment on column reporting.send_counts.send_key is 'The caller''s key for the send.';
comment on column reporting.send_counts.list_key is 'The list it went to.';
comment on column reporting.send_counts.template_key is 'The template.';
comment on column reporting.send_counts.state is 'scheduled, queued, sending, paused, completed or cancelled.';
comment on column reporting.send_counts.intended is 'Members in the snapshot.';
comment on column reporting.send_counts.queued is 'Not settled yet: waiting or being sent.';
comment on column reporting.send_counts.sent is 'Accepted by the next mail server.';
comment on column reporting.send_counts.failed is 'Given up.';
comment on column reporting.send_counts.skipped is 'Not mailed, with a reason: see send_skips.';
comment on column reporting.send_counts.unknown is 'The mail server may or may not have it.';
comment on column reporting.send_counts.created_at is 'When the trigger was accepted.';
comment on column reporting.send_counts.completed_at is 'When nothing was queued any more.';

create view reporting.send_skips with (security_invoker = true) as
select c.key as client_key, s.id as send_id, s.send_key, r.reason, r.members::integer as members
from sends s
join clients c on c.id = s.client_id
cross join lateral (
  select
    sum(skipped_hard_bounce) as hard_bounce,
    sum(skipped_complaint) as complaint,
    sum(skipped_suppressed) as suppressed,
    sum(skipped_unsubscribed) as unsubscribed,
    sum(skipped_consent_pending) as consent_pending,
    sum(skipped_cancelled) as cancelled,
    sum(skipped_expired) as expired
  from send_chunks k
  where k.client_id = s.client_id and k.send_id = s.id
) t
cross join lateral (values
  ('hard_bounce', t.hard_bounce),
  ('complaint', t.complaint),
  ('suppressed', t.suppressed),
  ('unsubscribed', t.unsubscribed),
  ('consent_pending', t.consent_pending),
  ('cancelled', t.cancelled),
  ('expired', t.expired)
) r (reason, members)
where r.members > 0;
comment on view reporting.send_skips is 'Skipped members per send and reason; the sum over a send is its skipped.';
comment on column reporting.send_skips.client_key is 'The client.';
comment on column reporting.send_skips.send_id is 'The send''s id.';
comment on column reporting.send_skips.send_key is 'The caller''s key for the send.';
comment on column reporting.send_skips.reason is 'hard_bounce, complaint, suppressed, unsubscribed, consent_pending, cancelled or expired.';
comment on column reporting.send_skips.members is 'How many members were skipped for it.';

create view reporting.messages with (security_invoker = true) as
select
  c.key as client_key,
  m.id as message_id,
  case when m.send_id is null then 'single' else 'list' end as kind,
  m.send_id,
  s.send_key,
  s.list_key,
  coalesce(s.template_key, e.template_key) as template_key,
  m.source_object_key,
  k.email,
  m.state,
  m.reason,
  m.attempts,
  m.was_unknown,
  m.last_reply,
  m.created_at,
  case when m.state = 'queued' then m.next_attempt_at end as next_attempt_at,
  m.settled_at
from messages m
join clients c on c.id = m.client_id
left join sends s on s.client_id = m.client_id and s.id = m.send_id
left join contacts k on k.client_id = m.client_id and k.id = m.contact_id
left join single_emails e on e.client_id = m.client_id and e.message_id = m.id;
comment on view reporting.messages is 'Every message with its state.';
comment on column reporting.messages.client_key is 'The client.';
comment on column reporting.messages.message_id is 'The message''s id.';
comment on column reporting.messages.kind is 'list: one member''s mail of a send; single: a single email.';
comment on column reporting.messages.send_id is 'The send; null for a single email.';
comment on column reporting.messages.send_key is 'The caller''s key for the send.';
comment on column reporting.messages.list_key is 'The list.';
comment on column reporting.messages.template_key is 'The template.';
comment on column reporting.messages.source_object_key is 'The member''s key at the trigger.';
comment on column reporting.messages.email is 'The member''s address, normalised; null for a single email and once the person is erased.';
comment on column reporting.messages.state is 'queued, sending, sent, failed, skipped or unknown.';
comment on column reporting.messages.reason is 'Why it was skipped, failed or put off.';
comment on column reporting.messages.attempts is 'Tries at the mail server.';
comment on column reporting.messages.was_unknown is 'True once its outcome was unknown: a duplicate is possible.';
comment on column reporting.messages.last_reply is 'The mail server''s last reply.';
comment on column reporting.messages.created_at is 'When the message was made.';
comment on column reporting.messages.next_attempt_at is 'When it is tried next, while it is queued.';
comment on column reporting.messages.settled_at is 'When it was sent, failed, skipped or became unknown.';

create view reporting.send_counts_audit with (security_invoker = true) as
select
  c.key as client_key,
  s.id as send_id,
  s.send_key,
  r.intended,
  r.queued,
  m.sent,
  m.failed,
  m.skipped,
  m.unknown
from sends s
join clients c on c.id = s.client_id
cross join lateral (
  select
    count(*)::integer as intended,
    count(*) filter (where x.state is null or x.state in ('queued', 'sending'))::integer as queued
  from send_recipients r
  left join messages x
    on x.client_id = r.client_id and x.send_id = r.send_id and x.position = r.position
  where r.client_id = s.client_id and r.send_id = s.id
) r
cross join lateral (
  select
    count(*) filter (where x.state = 'sent')::integer as sent,
    count(*) filter (where x.state = 'failed')::integer as failed,
    count(*) filter (where x.state = 'skipped')::integer as skipped,
    count(*) filter (where x.state = 'unknown')::integer as unknown
  from messages x
  where x.client_id = s.client_id and x.send_id = s.id
) m
where s.purged_at is null;
comment on view reporting.send_counts_audit is 'The counts again, counted from the snapshot and the messages themselves: always equal to send_counts, and slow on purpose. Without sends whose messages were deleted when their retention was over.';
comment on column reporting.send_counts_audit.client_key is 'The client.';
comment on column reporting.send_counts_audit.send_id is 'The send''s id.';
comment on column reporting.send_counts_audit.send_key is 'The caller''s key for the send.';
comment on column reporting.send_counts_audit.intended is 'Rows of the snapshot.';
comment on column reporting.send_counts_audit.queued is 'Rows of the snapshot without a message, or with one queued or sending.';
comment on column reporting.send_counts_audit.sent is 'Messages sent.';
comment on column reporting.send_counts_audit.failed is 'Messages failed.';
comment on column reporting.send_counts_audit.skipped is 'Messages skipped.';
comment on column reporting.send_counts_audit.unknown is 'Messages unknown.';
