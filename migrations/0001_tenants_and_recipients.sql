-- Who sends and who receives: clients with their keys and senders; contacts, suppressions, lists
-- and members. Every table carries client_id in its primary and foreign keys, so a row cannot
-- point at another client's row. Keys and addresses compare by byte (collate "C"): the same order
-- on every server, and cheaper indexes.

-- Time-ordered UUID (RFC 9562, version 7): new rows land at the end of every index.
-- PostgreSQL has uuidv7() from 18 on; this runs on 15 too.
create function uuid7() returns uuid
language sql volatile parallel safe
as $$
  select encode(
    set_bit(
      set_bit(
        overlay(
          uuid_send(gen_random_uuid())
          placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
          from 1 for 6),
        52, 1),
      53, 1),
    'hex')::uuid
$$;
comment on function uuid7() is 'A version 7 UUID: milliseconds since 1970 in the first 48 bits, then random bits.';

-- A suppression outlives the person it protects: it is found by this hash, also when the address
-- itself has been erased. The client's id is hashed along, so clients cannot be compared.
create function address_hash(client_id integer, email text) returns bytea
language sql immutable strict parallel safe
as $$ select sha256(convert_to('rosterpost:' || client_id || ':' || email, 'UTF8')) $$;

-- The check that keys can stand in a URL path: 1-255 characters, no slash, no control characters.
create function is_key(key text) returns boolean
language sql immutable parallel safe
as $$ select char_length(key) between 1 and 255 and key !~ '[/[:cntrl:]]' and key not in ('.', '..') $$;

-- 244 random bits in the form of Standard Webhooks 1.0.
create function new_webhook_secret() returns text
language sql volatile parallel safe
as $$
  select 'whsec_' || encode(
    decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'), 'base64')
$$;

create table clients (
  id integer generated always as identity primary key,
  key text collate "C" not null unique constraint client_key_is_a_key check (is_key(key)),
  name text not null,
  callback_url text
    constraint client_callback_url_is_http check (callback_url ~* '^https?:' and char_length(callback_url) <= 2048),
  callback_secret text not null default new_webhook_secret()
    constraint client_callback_secret_is_a_webhook_secret check (callback_secret ~ '^whsec_[A-Za-z0-9+/]{32,86}={0,2}$'),
  created_at timestamptz not null default now()
);
comment on table clients is 'A tenant. Everything else belongs to one client and is seen by no other.';
comment on column clients.id is 'Internal number, part of every key and foreign key.';
comment on column clients.key is 'The name the command line uses for the client.';
comment on column clients.name is 'Name for people.';
comment on column clients.callback_url is 'Where personal contexts are fetched from by sends that name no URL of their own; null where there is none.';
comment on column clients.callback_secret is 'Signs what is posted there (Standard Webhooks); kept as it is, because signing needs it.';
comment on column clients.created_at is 'When the client was created.';

create table api_keys (
  client_id integer not null references clients,
  prefix text collate "C" not null unique,
  key_sha256 bytea not null unique constraint key_hash_is_sha256 check (octet_length(key_sha256) = 32),
  name text not null default '',
  created_at timestamptz not null default now(),
  last_used_at timestamptz,
  revoked_at timestamptz,
  primary key (client_id, prefix)
);
comment on table api_keys is 'Bearer keys. A client may hold several live ones, so that a key can be rotated without a gap.';
comment on column api_keys.client_id is 'The client the key speaks for.';
comment on column api_keys.prefix is 'The first part of the key, shown in lists and used to find the row; not secret.';
comment on column api_keys.key_sha256 is 'SHA-256 of the whole key. The key itself is printed once and stored nowhere.';
comment on column api_keys.name is 'What the key is for.';
comment on column api_keys.created_at is 'When the key was made.';
comment on column api_keys.last_used_at is 'Last request with this key, to the hour.';
comment on column api_keys.revoked_at is 'From this moment on the key is refused.';

create table senders (
  client_id integer not null references clients,
  id text collate "C" not null constraint sender_id_is_a_key check (is_key(id)),
  email text not null,
  name text,
  reply_to text,
  is_default boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (client_id, id)
);
create unique index senders_one_default_per_client on senders (client_id) where is_default;
comment on table senders is 'From identities. A send copies its sender when it is triggered, so a later change does not touch it.';
comment on column senders.client_id is 'The client that owns the sender.';
comment on column senders.id is 'The name a request uses as from_email.';
comment on column senders.email is 'Address of the From header and of the envelope.';
comment on column senders.name is 'Display name of the From header.';
comment on column senders.reply_to is 'Address of the Reply-To header, when it differs.';
comment on column senders.is_default is 'Used where a request names no sender; at most one per client.';
comment on column senders.created_at is 'When the sender was created.';
comment on column senders.updated_at is 'When the sender was last changed.';

create table contacts (
  client_id integer not null references clients,
  id bigint generated always as identity,
  email text collate "C",
  email_given text,
  name text,
  consent text not null default 'subscribed'
    constraint contact_consent_is_known check (consent in ('subscribed', 'pending', 'unsubscribed')),
  unsubscribed_at timestamptz,
  attributes jsonb not null default '{}'
    constraint contact_attributes_are_an_object check (jsonb_typeof(attributes) = 'object'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  erased_at timestamptz,
  swept_at timestamptz,
  primary key (client_id, id),
  constraint contact_has_an_address_unless_erased check (
    (erased_at is null and email is not null and email_given is not null)
    or (erased_at is not null and email is null and email_given is null and name is null))
);
-- Serves only statements that name an address: while the table is nearly empty both indexes look equally
-- good to the planner for finding a contact by its id, and plans are kept.
create unique index contacts_by_email on contacts (client_id, email) where email is not null;
comment on table contacts is 'People by address. An erased person stays as an empty row, because sends count it.';
comment on column contacts.client_id is 'The client that knows the contact.';
comment on column contacts.id is 'Internal number of the contact.';
comment on column contacts.email is 'The address normalised: lower case, domain in punycode. Two spellings of one mailbox are one contact.';
comment on column contacts.email_given is 'The address as it was given first, which is the one mail goes to.';
comment on column contacts.name is 'Display name.';
comment on column contacts.consent is 'Consent as the client last set it.';
comment on column contacts.unsubscribed_at is 'Set when the recipient unsubscribed from everything; only the recipient undoes it.';
comment on column contacts.attributes is 'Free data of the client.';
comment on column contacts.created_at is 'When the contact was first seen.';
comment on column contacts.updated_at is 'When the contact was last changed.';
comment on column contacts.erased_at is 'When the person was erased; the row then holds nothing personal.';
comment on column contacts.swept_at is 'When it was looked whether a statement that was under way had put something back.';

create index contacts_to_sweep on contacts (erased_at) where erased_at is not null and swept_at is null;

create table suppressions (
  client_id integer not null references clients,
  address_hash bytea not null constraint suppression_hash_is_sha256 check (octet_length(address_hash) = 32),
  email text collate "C",
  reason text
    constraint suppression_reason_is_known check (reason in ('hard_bounce', 'complaint', 'manual')),
  note text,
  unsubscribed_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (client_id, address_hash),
  constraint suppression_says_why check (reason is not null or unsubscribed_at is not null),
  constraint suppression_hash_fits_its_address check (
    email is null or address_hash = address_hash(client_id, email))
);
create unique index suppressions_by_email on suppressions (client_id, email) where email is not null;
comment on table suppressions is 'Addresses that get no mail, whatever the send.';
comment on column suppressions.client_id is 'The client whose mail the address does not get.';
comment on column suppressions.address_hash is 'address_hash() of the normalised address, by which it is looked up.';
comment on column suppressions.email is 'The normalised address; null once the person is erased.';
comment on column suppressions.reason is 'hard_bounce: the mailbox does not exist; complaint: marked as spam; manual: set by the client; null where only an unsubscribe is remembered.';
comment on column suppressions.note is 'For people: where the suppression came from.';
comment on column suppressions.unsubscribed_at is 'When somebody who has been erased since had unsubscribed: counts like the contact''s own, should the address come back.';
comment on column suppressions.created_at is 'When the address was first suppressed.';
comment on column suppressions.updated_at is 'When the reason or note was last changed.';

create table recipient_lists (
  client_id integer not null references clients,
  id bigint generated always as identity,
  key text collate "C" not null constraint list_key_is_a_key check (is_key(key)),
  name text,
  type text,
  metadata jsonb not null default '{}'
    constraint list_metadata_is_an_object check (jsonb_typeof(metadata) = 'object'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  primary key (client_id, id)
);
create index recipient_lists_deleted on recipient_lists (client_id, key) where deleted_at is not null;
create unique index recipient_lists_by_key on recipient_lists (client_id, key) where deleted_at is null;
comment on table recipient_lists is 'Stored lists. Writers of one list take its row lock first, so they never deadlock.';
comment on column recipient_lists.client_id is 'The client that owns the list.';
comment on column recipient_lists.id is 'Internal number; a key used again after a deletion is another list.';
comment on column recipient_lists.key is 'The name in the URL.';
comment on column recipient_lists.name is 'Name for people; also in the List-Id header.';
comment on column recipient_lists.type is 'Free classification of the client.';
comment on column recipient_lists.metadata is 'Free data of the client.';
comment on column recipient_lists.created_at is 'When the list was created.';
comment on column recipient_lists.updated_at is 'When name, type or metadata was last changed.';
comment on column recipient_lists.deleted_at is 'When the list was hidden. Its running sends finish.';

create function strictest_consent(consents text[]) returns text
language sql immutable parallel safe
return case
  when 'unsubscribed' = any (consents) then 'unsubscribed'
  when 'pending' = any (consents) then 'pending'
  else 'subscribed'
end;
comment on function strictest_consent is
  'What counts where several consents are known of a person: the strictest; subscribed where none is.';

create table list_members (
  client_id integer not null,
  list_id bigint not null,
  source_object_key text collate "C" not null constraint member_key_is_a_key check (is_key(source_object_key)),
  contact_id bigint not null,
  name text,
  consent text not null default 'subscribed'
    constraint member_consent_is_known check (consent in ('subscribed', 'pending', 'unsubscribed')),
  metadata jsonb not null default '{}'
    constraint member_metadata_is_an_object check (jsonb_typeof(metadata) = 'object'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  removed_at timestamptz,
  primary key (client_id, list_id, source_object_key),
  foreign key (client_id, list_id) references recipient_lists (client_id, id),
  foreign key (client_id, contact_id) references contacts (client_id, id)
);
-- One active membership per contact and list. The contact stands before the list, so that the same
-- index finds all lists of a contact.
create unique index list_members_contact_stands_once
  on list_members (client_id, contact_id, list_id) where removed_at is null;
create index list_members_removed
  on list_members (client_id, contact_id, list_id, removed_at) where removed_at is not null;
comment on table list_members is 'Memberships. A removed one stays as a row, so that a repeated removal is harmless.';
comment on column list_members.client_id is 'The client that owns the list.';
comment on column list_members.list_id is 'The list.';
comment on column list_members.source_object_key is 'The client''s own key of the membership; stands once in a list.';
comment on column list_members.contact_id is 'The person; active once in a list.';
comment on column list_members.name is 'Display name in this list; the contact''s where null.';
comment on column list_members.consent is 'Consent for this list as the client last set it; the stricter of this and the contact''s counts.';
comment on column list_members.metadata is 'Free data of the client.';
comment on column list_members.created_at is 'When the key was first seen in the list.';
comment on column list_members.updated_at is 'When the membership was last changed.';
comment on column list_members.removed_at is 'When the member was removed; null while active.';

create table list_unsubscribes (
  client_id integer not null,
  contact_id bigint not null,
  list_id bigint not null,
  unsubscribed_at timestamptz not null default now(),
  primary key (client_id, contact_id, list_id),
  foreign key (client_id, contact_id) references contacts (client_id, id),
  foreign key (client_id, list_id) references recipient_lists (client_id, id)
);
comment on table list_unsubscribes is 'Recipients who unsubscribed from one list. Of the person, not of the membership: it outlives removal and a new key. Only the recipient undoes it.';
comment on column list_unsubscribes.client_id is 'The client that owns the list.';
comment on column list_unsubscribes.contact_id is 'The person.';
comment on column list_unsubscribes.list_id is 'The list.';
comment on column list_unsubscribes.unsubscribed_at is 'When they did.';
