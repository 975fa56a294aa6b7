-- Where the rows of an import wait until its body has ended well: only then they go into the list, in
-- one transaction. Both tables are unlogged: what they hold is of no use after a crash, and writing it
-- costs half. A crash of the server empties them, and the import learns it from its row being gone.

-- Not unlogged: a number must not come back after a crash, when its import may still be writing.
create sequence import_ids;
comment on sequence import_ids is 'Numbers of imports.';

create unlogged table imports (
  id bigint primary key default nextval('import_ids'),
  client_id integer not null references clients,
  list_key text collate "C" not null constraint import_list_is_a_key check (is_key(list_key)),
  started_at timestamptz not null default now(),
  touched_at timestamptz not null default now()
);
comment on table imports is 'Imports that are under way.';
comment on column imports.id is 'Internal number.';
comment on column imports.client_id is 'The client that imports.';
comment on column imports.list_key is 'The list it goes into; made at the end, where it is missing.';
comment on column imports.started_at is 'When its body began.';
comment on column imports.touched_at is 'Its last sign of life. Long after it the import is abandoned, and swept.';

create unlogged table import_rows (
  import_id bigint not null,
  line integer not null,
  source_object_key text collate "C" not null,
  email text collate "C" not null,
  email_given text not null,
  name text,
  has_name boolean not null,
  consent text,
  metadata jsonb,
  is_twin boolean not null default false,
  carried_consent text,
  primary key (import_id, line)
);
-- Small: only what stands twice in one file is in them.
create index import_twins_by_key on import_rows (import_id, source_object_key, line) where is_twin;
create index import_twins_by_email on import_rows (import_id, email, line) where is_twin;
create index import_twins_by_line on import_rows (import_id, line) where is_twin;
comment on table import_rows is 'Checked rows of an import. No foreign key: it would double what a row costs, and what is left is swept with its import.';
comment on column import_rows.import_id is 'The import.';
comment on column import_rows.line is 'Line of the file on which the row begins; the first is 1.';
comment on column import_rows.source_object_key is 'The member''s key.';
comment on column import_rows.email is 'The address, normalised.';
comment on column import_rows.email_given is 'The address as given.';
comment on column import_rows.name is 'The name, where given.';
comment on column import_rows.has_name is 'Whether a name was given; null is one.';
comment on column import_rows.consent is 'The consent, where given.';
comment on column import_rows.metadata is 'The metadata, where given.';
comment on column import_rows.is_twin is 'Its key or its address stands on another line, too; the later one is rejected.';
comment on column import_rows.carried_consent is 'The consent of the membership under another key that gives way to this one.';
