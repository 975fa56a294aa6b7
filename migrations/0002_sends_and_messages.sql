-- The send: its frozen members, its chunks, its messages. State lives here; a job in
-- graphile_worker is only a wake-up for what these rows say is due.
--
--   sends ──< send_recipients (the snapshot, written once)
--     └────< send_chunks (positions first..last of the snapshot; tallies)
--   messages: one per snapshot row, or a single email with its message_recipients
--
-- Lock order everywhere: send, chunk (ascending), messages.
-- Contexts are json, not jsonb: a mail that lays out any data keeps the order of its keys.

create table workers (
  id bigint generated always as identity primary key,
  hostname text not null,
  pid integer not null,
  lanes text[] not null,
  pool_ids text[] not null default '{}',
  started_at timestamptz not null default now(),
  heartbeat_at timestamptz not null default now(),
  stopped_at timestamptz
);
create index workers_running on workers (heartbeat_at) where stopped_at is null;
comment on table workers is 'Worker processes. A claim names its worker and needs this row to be running.';
comment on column workers.id is 'Stands in messages.claimed_by and send_chunks.leased_by.';
comment on column workers.hostname is 'Machine the process runs on.';
comment on column workers.pid is 'Process id on that machine.';
comment on column workers.lanes is 'The lanes the process works in.';
comment on column workers.pool_ids is 'graphile-worker''s pool ids, one per lane: what locked_by of its jobs says.';
comment on column workers.started_at is 'When the process started to work.';
comment on column workers.heartbeat_at is 'Last sign of life, in database time.';
comment on column workers.stopped_at is 'When the process ended or was declared dead; from then on it can claim nothing.';

create table sends (
  client_id integer not null references clients,
  id uuid not null default uuid7(),
  send_key text collate "C" not null constraint send_key_length check (char_length(send_key) between 1 and 255),
  list_id bigint not null,
  list_key text collate "C" not null,
  request_digest jsonb not null,
  template_key text not null,
  template_version text not null,
  requires_consent boolean not null,
  sender_id text not null,
  sender_email text not null,
  sender_name text,
  sender_reply_to text,
  shared_context json not null default '{}'
    constraint send_shared_context_is_an_object check (json_typeof(shared_context) = 'object'),
  metadata jsonb not null default '{}'
    constraint send_metadata_is_an_object check (jsonb_typeof(metadata) = 'object'),
  state text not null default 'queued' constraint send_state_is_known
    check (state in ('scheduled', 'queued', 'sending', 'paused', 'completed', 'cancelled')),
  intended integer not null default 0 constraint send_intended_is_not_negative check (intended >= 0),
  open_chunks integer constraint send_open_chunks_is_not_negative check (open_chunks >= 0),
  created_at timestamptz not null default now(),
  completed_at timestamptz,
  primary key (client_id, id),
  unique (client_id, send_key),
  foreign key (client_id, list_id) references recipient_lists (client_id, id),
  constraint send_is_completed_when_no_chunk_is_open check (
    (completed_at is null or open_chunks = 0)
    and (state <> 'completed' or completed_at is not null)
    and (state <> 'sending' or open_chunks is not null))
);
create unique index sends_by_id on sends (id);
create index sends_by_list on sends (client_id, list_id, id);
create index sends_unfinished on sends (client_id, id) where completed_at is null;
comment on table sends is 'One trigger to a list. Everything a worker needs is frozen here when it is accepted.';
comment on column sends.client_id is 'The client that sends.';
comment on column sends.id is 'Public id; time-ordered.';
comment on column sends.send_key is 'The caller''s idempotency key: one send per key and client, for ever.';
comment on column sends.list_id is 'The list at the time of the trigger.';
comment on column sends.list_key is 'The list''s key at the time of the trigger.';
comment on column sends.request_digest is 'SHA-256 (hex) of each field of the request in canonical JSON (RFC 8785); tells a replay from a different request, and which field differs.';
comment on column sends.template_key is 'The template.';
comment on column sends.template_version is 'Hash of the template''s source at the trigger. A worker with another version leaves the send queued.';
comment on column sends.requires_consent is 'True for a marketing template and where the request asked for it: pending and unsubscribed members are skipped.';
comment on column sends.sender_id is 'The sender''s id, as the request''s from_email or the default.';
comment on column sends.sender_email is 'Frozen copy of the sender''s address.';
comment on column sends.sender_name is 'Frozen copy of the sender''s display name.';
comment on column sends.sender_reply_to is 'Frozen copy of the sender''s Reply-To address.';
comment on column sends.shared_context is 'The part of the template context all members share.';
comment on column sends.metadata is 'Free data of the client.';
comment on column sends.state is 'queued: accepted; sending: cut into chunks; completed: nothing is queued any more.';
comment on column sends.intended is 'Size of the snapshot. intended = queued + sent + failed + skipped + unknown, always.';
comment on column sends.open_chunks is 'Chunks with queued members; null until the snapshot is cut.';
comment on column sends.created_at is 'When the trigger was accepted.';
comment on column sends.completed_at is 'When the last chunk had nothing queued any more.';

create table send_recipients (
  client_id integer not null,
  send_id uuid not null,
  position integer not null,
  contact_id bigint not null,
  source_object_key text collate "C" not null,
  name text,
  context json,
  primary key (client_id, send_id, position),
  foreign key (client_id, send_id) references sends (client_id, id),
  foreign key (client_id, contact_id) references contacts (client_id, id)
);
comment on table send_recipients is 'The snapshot: the list''s active members at one instant of the trigger. Written in the trigger''s transaction and never added to.';
comment on column send_recipients.client_id is 'The client that sends.';
comment on column send_recipients.send_id is 'The send.';
comment on column send_recipients.position is '1 to sends.intended; chunks are ranges of it.';
comment on column send_recipients.contact_id is 'The person.';
comment on column send_recipients.source_object_key is 'The member''s key at the trigger.';
comment on column send_recipients.name is 'The member''s display name at the trigger.';
comment on column send_recipients.context is 'The personal context; null counts as {}.';

create table send_chunks (
  client_id integer not null,
  send_id uuid not null,
  chunk_no integer not null constraint chunk_no_counts_from_1 check (chunk_no >= 1),
  first_position integer not null,
  last_position integer not null,
  sent integer not null default 0 check (sent >= 0),
  failed integer not null default 0 check (failed >= 0),
  unknown integer not null default 0 check (unknown >= 0),
  skipped_hard_bounce integer not null default 0 check (skipped_hard_bounce >= 0),
  skipped_complaint integer not null default 0 check (skipped_complaint >= 0),
  skipped_suppressed integer not null default 0 check (skipped_suppressed >= 0),
  skipped_unsubscribed integer not null default 0 check (skipped_unsubscribed >= 0),
  skipped_consent_pending integer not null default 0 check (skipped_consent_pending >= 0),
  skipped_cancelled integer not null default 0 check (skipped_cancelled >= 0),
  skipped_expired integer not null default 0 check (skipped_expired >= 0),
  skipped integer generated always as (
    skipped_hard_bounce + skipped_complaint + skipped_suppressed + skipped_unsubscribed
    + skipped_consent_pending + skipped_cancelled + skipped_expired) stored,
  next_attempt_at timestamptz,
  leased_by bigint references workers,
  prepared_at timestamptz,
  completed_at timestamptz,
  primary key (client_id, send_id, chunk_no),
  foreign key (client_id, send_id) references sends (client_id, id),
  constraint chunk_is_a_range check (last_position >= first_position),
  constraint chunk_settles_at_most_its_members check (
    sent + failed + unknown
    + skipped_hard_bounce + skipped_complaint + skipped_suppressed + skipped_unsubscribed
    + skipped_consent_pending + skipped_cancelled + skipped_expired
    <= last_position - first_position + 1),
  constraint chunk_is_completed_when_nothing_is_queued check (
    completed_at is null
    or sent + failed + unknown
       + skipped_hard_bounce + skipped_complaint + skipped_suppressed + skipped_unsubscribed
       + skipped_consent_pending + skipped_cancelled + skipped_expired
       = last_position - first_position + 1)
) with (fillfactor = 50);
create index send_chunks_due on send_chunks (next_attempt_at)
  where completed_at is null and next_attempt_at is not null;
create index send_chunks_leased on send_chunks (leased_by) where leased_by is not null;
comment on table send_chunks is 'About 500 positions of a snapshot: the unit of work and of counting. Tallies change in the transaction that changes the messages they count.';
comment on column send_chunks.client_id is 'The client that sends.';
comment on column send_chunks.send_id is 'The send.';
comment on column send_chunks.chunk_no is 'Number within the send, from 1.';
comment on column send_chunks.first_position is 'First position of the snapshot in this chunk.';
comment on column send_chunks.last_position is 'Last position of the snapshot in this chunk.';
comment on column send_chunks.sent is 'Messages the next mail server accepted.';
comment on column send_chunks.failed is 'Messages that will not be sent.';
comment on column send_chunks.unknown is 'Messages whose outcome nobody knows.';
comment on column send_chunks.skipped_hard_bounce is 'Members skipped: the address bounced for good.';
comment on column send_chunks.skipped_complaint is 'Members skipped: the recipient complained.';
comment on column send_chunks.skipped_suppressed is 'Members skipped: suppressed by the client.';
comment on column send_chunks.skipped_unsubscribed is 'Members skipped: unsubscribed, where consent is needed.';
comment on column send_chunks.skipped_consent_pending is 'Members skipped: consent not confirmed, where it is needed.';
comment on column send_chunks.skipped_cancelled is 'Members skipped: the send was cancelled.';
comment on column send_chunks.skipped_expired is 'Members skipped: the send expired before they were tried.';
comment on column send_chunks.skipped is 'All members skipped.';
comment on column send_chunks.next_attempt_at is 'When the chunk is due for delivery; null while a job has it or nothing is waiting.';
comment on column send_chunks.leased_by is 'The worker that delivers the chunk; only it can have messages of the chunk in hand.';
comment on column send_chunks.prepared_at is 'When all its messages existed.';
comment on column send_chunks.completed_at is 'When none of its members was queued any more.';

create table messages (
  client_id integer not null references clients,
  id uuid not null default uuid7(),
  send_id uuid,
  position integer,
  contact_id bigint,
  source_object_key text collate "C",
  state text not null default 'queued' constraint message_state_is_known
    check (state in ('queued', 'sending', 'sent', 'failed', 'skipped', 'unknown')),
  reason text,
  attempts smallint not null default 0 check (attempts >= 0),
  was_unknown boolean not null default false,
  next_attempt_at timestamptz not null default now(),
  claimed_by bigint,
  claimed_at timestamptz,
  last_reply text,
  created_at timestamptz not null default now(),
  settled_at timestamptz,
  primary key (client_id, id),
  foreign key (client_id, send_id, position) references send_recipients (client_id, send_id, position),
  constraint message_is_of_a_send_or_single check (
    (send_id is null and position is null and contact_id is null and source_object_key is null)
    or (send_id is not null and position is not null and contact_id is not null and source_object_key is not null)),
  constraint message_is_claimed_while_sending check (
    (state = 'sending') = (claimed_by is not null) and (claimed_by is null) = (claimed_at is null)),
  constraint message_is_settled_unless_waiting check (
    (state in ('queued', 'sending')) = (settled_at is null)),
  constraint message_has_a_reason_where_not_sent check (
    state not in ('failed', 'skipped') or reason is not null)
) with (fillfactor = 70);
-- No index holds a column that changes, so every change of state is a heap-only update (HOT).
create unique index messages_one_per_position on messages (client_id, send_id, position)
  where send_id is not null;
create unique index messages_one_per_contact on messages (client_id, contact_id, send_id)
  where send_id is not null;
create unique index messages_one_per_key on messages (client_id, send_id, source_object_key)
  where send_id is not null;
comment on table messages is 'One SMTP transaction each: a member''s mail of a send, or a single email.';
comment on column messages.client_id is 'The client that sends.';
comment on column messages.id is 'Public id; the Message-ID header is made of it and never changes.';
comment on column messages.send_id is 'The send; null for a single email.';
comment on column messages.position is 'The row of the snapshot this message is for.';
comment on column messages.contact_id is 'The person; at most one message per send.';
comment on column messages.source_object_key is 'The member''s key at the trigger; at most one message per send.';
comment on column messages.state is 'queued: waiting; sending: handed to a worker; sent: accepted by the next mail server; failed; skipped; unknown: the server may or may not have it.';
comment on column messages.reason is 'Why it was skipped, failed or put off.';
comment on column messages.attempts is 'Tries at the mail server.';
comment on column messages.was_unknown is 'True once its outcome was unknown: a duplicate is possible.';
comment on column messages.next_attempt_at is 'Not tried before this time.';
comment on column messages.claimed_by is 'The worker that has it in hand, while sending.';
comment on column messages.claimed_at is 'When it was handed over, while sending.';
comment on column messages.last_reply is 'The mail server''s last reply, or what went wrong before one.';
comment on column messages.created_at is 'When the message was made.';
comment on column messages.settled_at is 'When it was sent, failed, skipped or became unknown.';
