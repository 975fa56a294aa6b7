-- What the links in mails are signed with. The links themselves are stored nowhere: a link says whom it
-- is for, and the signature that it came from us.

create table signing_keys (
  purpose text collate "C" primary key constraint signing_key_purpose_is_known
    check (purpose in ('recipient_links')),
  secret bytea not null constraint signing_key_has_32_bytes check (octet_length(secret) = 32),
  created_at timestamptz not null default now()
);
comment on table signing_keys is 'Secrets of this installation, made by its migration. A backup without them is of no use to mails sent before: their links would be strangers'' links.';
comment on column signing_keys.purpose is 'recipient_links: the links by which recipients unsubscribe and confirm.';
comment on column signing_keys.secret is 'Key of the HMAC-SHA-256. Links of mails sent before a change of it are refused.';
comment on column signing_keys.created_at is 'When the key was made.';

-- Two version 4 UUIDs are 32 bytes with 244 random bits, of the server's strong random source, and need
-- no extension.
insert into signing_keys (purpose, secret)
values ('recipient_links', uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
