-- Single emails: one message to addresses of its own, by a registered type, with attachments. They are
-- messages like any other (0002); what is theirs alone stands here, and the queue the workers claim
-- them from, so that messages itself needs no index on a column that changes.

create table email_types (
  client_id integer not null references clients,
  email_type text collate "C" not null constraint email_type_is_a_key check (is_key(email_type)),
  description text,
  to_addresses text[] not null default '{}',
  cc_addresses text[] not null default '{}',
  bcc_addresses text[] not null default '{}',
  from_email text collate "C",
  is_active boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (client_id, email_type),
  constraint email_type_sender_exists foreign key (client_id, from_email) references senders (client_id, id)
);
comment on table email_types is 'Registered kinds of single emails, with the recipients each has by default.';
comment on column email_types.client_id is 'The client that registered the type.';
comment on column email_types.email_type is 'The name requests use.';
comment on column email_types.description is 'For people.';
comment on column email_types.to_addresses is 'To, where a request gives none.';
comment on column email_types.cc_addresses is 'Cc, where a request gives none.';
comment on column email_types.bcc_addresses is 'Bcc, where a request gives none.';
comment on column email_types.from_email is 'The sender''s id; the client''s default sender where null.';
comment on column email_types.is_active is 'False refuses new emails of this type.';
comment on column email_types.created_at is 'When the type was registered.';
comment on column email_types.updated_at is 'When the type was last changed.';

create table single_emails (
  client_id integer not null references clients,
  message_id uuid not null,
  email_type text,
  subject text,
  template_key text not null,
  template_version text not null,
  email_data json not null constraint email_data_is_an_object check (json_typeof(email_data) = 'object'),
  priority_level smallint not null constraint priority_is_1_to_10 check (priority_level between 1 and 10),
  requires_consent boolean not null,
  on_unknown text not null constraint email_on_unknown_is_known check (on_unknown in ('retry', 'hold')),
  sender_id text not null,
  sender_email text not null,
  sender_name text,
  sender_reply_to text,
  idempotency_key text collate "C"
    constraint idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
  request_digest bytea constraint request_digest_is_sha256 check (octet_length(request_digest) = 32),
  confirms_list_id bigint,
  confirms_contact_id bigint,
  queued_at timestamptz not null default now(),
  queue_state text not null default 'due' constraint queue_state_is_known
    check (queue_state in ('due', 'deferred', 'claimed', 'settled')),
  next_attempt_at timestamptz,
  claimed_by bigint references workers,
  claim_id uuid,
  primary key (client_id, message_id),
  foreign key (client_id, message_id) references messages (client_id, id),
  unique (client_id, idempotency_key),
  foreign key (client_id, confirms_list_id) references recipient_lists (client_id, id),
  foreign key (client_id, confirms_contact_id) references contacts (client_id, id),
  constraint email_confirms_a_contact_of_a_list check ((confirms_list_id is null) = (confirms_contact_id is null)),
  constraint email_has_a_digest_with_its_key check ((idempotency_key is null) = (request_digest is null)),
  constraint email_is_due_at_a_time_while_deferred check ((queue_state = 'deferred') = (next_attempt_at is not null)),
  constraint email_is_claimed_by_a_worker check (
    (queue_state = 'claimed') = (claimed_by is not null) and (claimed_by is null) = (claim_id is null))
);
-- Priority 1 has a job per mail; the others are claimed in this order.
create index single_emails_due on single_emails (priority_level, queued_at) where queue_state = 'due';
create index single_emails_deferred on single_emails (next_attempt_at) where queue_state = 'deferred';
create index single_emails_claimed on single_emails (claimed_by) where queue_state = 'claimed';
create index single_emails_settled on single_emails (queued_at) where queue_state = 'settled';
create index single_emails_confirming on single_emails (client_id, confirms_list_id, confirms_contact_id)
  where confirms_list_id is not null;
create index single_emails_by_type on single_emails (client_id, email_type, message_id);
comment on table single_emails is 'What a message outside a send consists of, and its place in the queue.';
comment on column single_emails.client_id is 'The client that sends.';
comment on column single_emails.message_id is 'Its message; the email_id of the API.';
comment on column single_emails.email_type is 'The registered type it was queued as; null for a test-send.';
comment on column single_emails.subject is 'The subject; null takes the template''s.';
comment on column single_emails.template_key is 'The template.';
comment on column single_emails.template_version is 'Hash of the template''s source when it was queued.';
comment on column single_emails.email_data is 'The template''s two contexts taken together, as given.';
comment on column single_emails.priority_level is '1: high, a job of its own; 2: normal; 3-10: low.';
comment on column single_emails.requires_consent is 'True for a marketing template: addresses without consent are left out.';
comment on column single_emails.on_unknown is 'As of a send: whether an unknown outcome is tried once more.';
comment on column single_emails.sender_id is 'The sender''s id.';
comment on column single_emails.sender_email is 'Frozen copy of the sender''s address.';
comment on column single_emails.sender_name is 'Frozen copy of the sender''s display name.';
comment on column single_emails.sender_reply_to is 'Frozen copy of the sender''s Reply-To address.';
comment on column single_emails.idempotency_key is 'The request''s Idempotency-Key; one email per key and client.';
comment on column single_emails.request_digest is 'SHA-256 of the request under that key; tells a replay from a different request.';
comment on column single_emails.confirms_list_id is 'The list whose confirmation link the mail carries; null for a mail without one.';
comment on column single_emails.confirms_contact_id is 'The person the confirmation link is for.';
comment on column single_emails.queued_at is 'When it was accepted.';
comment on column single_emails.queue_state is 'due: may be claimed; deferred: waits for next_attempt_at; claimed: in a worker''s hands; settled: done.';
comment on column single_emails.next_attempt_at is 'When a deferred one becomes due.';
comment on column single_emails.claimed_by is 'The worker that has it in hand.';
comment on column single_emails.claim_id is 'Names the statement that claimed it, whose answer may be lost.';

create table message_recipients (
  client_id integer not null,
  message_id uuid not null,
  ordinal smallint not null,
  kind text not null constraint recipient_kind_is_known check (kind in ('to', 'cc', 'bcc')),
  email text collate "C",
  email_given text,
  state text not null default 'queued' constraint recipient_state_is_known
    check (state in ('queued', 'sent', 'failed', 'skipped', 'unknown')),
  reason text,
  last_reply text,
  primary key (client_id, message_id, ordinal),
  foreign key (client_id, message_id) references messages (client_id, id)
);
create index message_recipients_by_email on message_recipients (client_id, email);
comment on table message_recipients is 'The To, Cc and Bcc addresses of a single email, each with an outcome of its own.';
comment on column message_recipients.client_id is 'The client that sends.';
comment on column message_recipients.message_id is 'The message.';
comment on column message_recipients.ordinal is 'Order within the message, from 0.';
comment on column message_recipients.kind is 'to, cc or bcc.';
comment on column message_recipients.email is 'The address normalised; null once the person is erased.';
comment on column message_recipients.email_given is 'The address as it was given.';
comment on column message_recipients.state is 'queued: waiting; sent: accepted by the next mail server; failed; skipped; unknown.';
comment on column message_recipients.reason is 'Why it was skipped, failed or put off.';
comment on column message_recipients.last_reply is 'The mail server''s last reply for this address.';

create table attachment_contents (
  client_id integer not null references clients,
  sha256 bytea not null constraint attachment_hash_is_sha256 check (octet_length(sha256) = 32),
  content bytea not null constraint attachment_is_not_empty check (octet_length(content) > 0),
  created_at timestamptz not null default now(),
  primary key (client_id, sha256)
);
-- Allowed types are compressed already (or small): stored as they come, read without unpacking.
alter table attachment_contents alter column content set storage external;
comment on table attachment_contents is 'Attached files, each content once per client.';
comment on column attachment_contents.client_id is 'The client that attached it.';
comment on column attachment_contents.sha256 is 'Hash of the content.';
comment on column attachment_contents.content is 'The file, byte for byte.';
comment on column attachment_contents.created_at is 'When the content was first stored.';

create table message_attachments (
  client_id integer not null,
  message_id uuid not null,
  ordinal smallint not null,
  filename text not null,
  content_type text not null,
  sha256 bytea not null,
  primary key (client_id, message_id, ordinal),
  foreign key (client_id, message_id) references messages (client_id, id),
  foreign key (client_id, sha256) references attachment_contents (client_id, sha256)
);
create index message_attachments_by_content on message_attachments (client_id, sha256);
comment on table message_attachments is 'The files of a single email.';
comment on column message_attachments.client_id is 'The client that sends.';
comment on column message_attachments.message_id is 'The message.';
comment on column message_attachments.ordinal is 'Order within the message, from 0.';
comment on column message_attachments.filename is 'The name the recipient sees, made safe.';
comment on column message_attachments.content_type is 'Media type, as checked against the content.';
comment on column message_attachments.sha256 is 'The content.';
