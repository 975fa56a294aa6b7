-- What all workers together know of the mail servers: which are stopped, and how many messages one may
-- still get this second. A row of transport_states is a breaker that is not closed; a closed one has none.
--
--   (closed) ──► open ──► half_open ──► (closed)
--                  ▲          │
--                  └──────────┘  the probe failed: twice the pause

create table transport_states (
  transport text collate "C" not null,
  sender_email text collate "C" not null default '',
  recipient_domain text collate "C" not null default '',
  state text not null default 'open' constraint transport_state_is_known
    check (state in ('open', 'half_open')),
  reason text not null constraint transport_state_reason_is_known
    check (reason in ('connection_refused', 'login_refused', 'sender_refused', 'slowed')),
  last_reply text not null,
  opened_at timestamptz not null default now(),
  retry_at timestamptz not null,
  failures integer not null default 1 constraint transport_state_has_failed check (failures >= 1),
  primary key (transport, sender_email, recipient_domain),
  constraint transport_state_is_of_a_sender_or_a_domain check (sender_email = '' or recipient_domain = '')
);
comment on table transport_states is 'Breakers that are not closed: what a mail server does not take for now, though no message is at fault. Its mail stays queued.';
comment on column transport_states.transport is 'The mail server''s name in the configuration.';
comment on column transport_states.sender_email is 'The sender it refuses, in lower case; empty where that is not the matter.';
comment on column transport_states.recipient_domain is 'The recipients'' domain it is slow for; empty where that is not the matter. With both empty the whole mail server is stopped.';
comment on column transport_states.state is 'open: nothing is handed over before retry_at; half_open: one message is under way as a probe.';
comment on column transport_states.reason is 'connection_refused: 5xx before the login, or no TLS where it is required; login_refused; sender_refused: 5xx at MAIL FROM; slowed: 421, 454 or 4.7.x.';
comment on column transport_states.last_reply is 'The reply that opened it, without addresses.';
comment on column transport_states.opened_at is 'When the trouble began.';
comment on column transport_states.retry_at is 'When the next probe may go; while half_open, when the probe counts as lost.';
comment on column transport_states.failures is 'Failures in a row; each doubles the pause.';

create table transport_tokens (
  transport text collate "C" primary key,
  tokens float8 not null constraint tokens_are_not_negative check (tokens >= 0),
  refilled_at timestamptz not null default now()
);
comment on table transport_tokens is 'The rate limit of each mail server, over all workers: a token bucket in database time.';
comment on column transport_tokens.transport is 'The mail server''s name in the configuration.';
comment on column transport_tokens.tokens is 'Messages it could get at refilled_at; at most what it gets in a second.';
comment on column transport_tokens.refilled_at is 'When tokens was right.';
