// Writing many members at once, set-based: contacts first, in the order of their addresses, so that
// writers of different lists take the shared contact rows in one order; then memberships that have to
// give way; then the members themselves. Serves the single PUT, bulk-upsert, reconcile and import.
// In a list a key stands once and a contact is active once: the latest key given for a contact wins.
import { sql, type RawBuilder } from 'kysely';
import type { Trx } from '../database/connect.ts';
import type { Consent } from '../database/schema.ts';
import { lockList } from './lists.ts';
import type { KeyedMember } from './read-members.ts';

export interface UpsertCounts {
  created: number;
  updated: number;
  unchanged: number;
}

/**
 * Upserts members whose keys and addresses are distinct, making the list where it is missing. An
 * absent field stays as it is; a removed member becomes active again. 10,000 take well under 1 s.
 */
export async function upsertMembers(
  trx: Trx,
  clientId: number,
  listKey: string,
  members: readonly KeyedMember[],
): Promise<UpsertCounts> {
  const { id: listId } = await lockList(trx, clientId, listKey);
  if (members.length === 0) return { created: 0, updated: 0, unchanged: 0 };
  const json = JSON.stringify(
    members.map(({ email, metadata, ...rest }) => ({
      ...rest,
      email: email.email,
      email_given: email.given,
      metadata,
      has_name: rest.name !== undefined,
    })),
  );
  const rows = sql`jsonb_to_recordset(${json}::jsonb) as r(
    source_object_key text, email text, email_given text, name text, has_name boolean,
    consent text, metadata jsonb)`;
  const counts = { created: 0, updated: 0, unchanged: 0 };
  // Where a person was erased since their contact was found, another one is made for them.
  for (let matched = 0; matched < members.length;) {
    const written = await writeOnce(trx, clientId, listId, rows);
    counts.created += written.created;
    counts.updated += written.updated;
    matched = written.matched;
  }
  return { ...counts, unchanged: members.length - counts.created - counts.updated };
}

async function writeOnce(
  trx: Trx,
  clientId: number,
  listId: number,
  rows: RawBuilder<unknown>,
): Promise<Written> {
  await upsertContacts(trx, clientId, rows);
  const superseded = await removeSuperseded(trx, clientId, listId, rows);
  // An object by contact id is looked into by key; joined as a set, 10,000 moves took 4 s.
  const carried = JSON.stringify(
    Object.fromEntries(superseded.map(({ contact_id, consent }) => [contact_id, consent])),
  );
  return writeMembers(trx, clientId, listId, {
    rows,
    carried: sql`${carried}::jsonb ->> c.id::text`,
  });
}

interface Written {
  created: number;
  updated: number;
  /** Rows that found their contact. */
  matched: number;
}

/** Where rows come from: a table expression called r, and the consent that r's contact brings along. */
export interface MemberSource {
  rows: RawBuilder<unknown>;
  carried: RawBuilder<unknown>;
}

/** Writes members whose contacts are there and no longer active under other keys. */
export async function writeMembers(
  trx: Trx,
  clientId: number,
  listId: number,
  { rows, carried }: MemberSource,
): Promise<Written> {
  const { rows: counted } = await sql<Written>`
    with given as (
      select r.source_object_key, c.id as contact_id,
        case when r.has_name then r.name else e.name end as name,
        coalesce(case
          -- What the recipient has said already is nothing new: an export imported again changes nothing.
          when r.consent = 'unsubscribed' and e.contact_id = c.id and exists (
            select from list_unsubscribes u
            where u.client_id = ${clientId} and u.contact_id = c.id and u.list_id = ${listId}
          ) then e.consent
          else r.consent
        end, case
          when e.contact_id = c.id and e.removed_at is null then e.consent
          when e.contact_id = c.id then strictest_consent(array[e.consent, k.consent, removed.consent])
          -- Another person has the key from now on, with their own consent where there is one.
          else strictest_consent(array[coalesce(k.consent, removed.consent, e.consent), removed.consent])
        end) as consent,
        coalesce(r.metadata, e.metadata, '{}') as metadata
      from ${rows}
      ${joinContact(clientId)}
      cross join lateral (select ${carried} as consent) k
      left join lateral (
        select contact_id, removed_at, name, consent, metadata from list_members
        where client_id = ${clientId} and list_id = ${listId} and source_object_key = r.source_object_key
        limit 1
      ) e on true
      left join lateral (
        select consent from list_members
        where client_id = ${clientId} and contact_id = c.id
          -- Not by the primary key, as planned at times: a walk through the whole list for each row.
          and list_id + 0 = ${listId}
          and removed_at is not null
        order by removed_at desc limit 1
      ) removed on true
      order by r.source_object_key
    ),
    written as (
      insert into list_members as m (client_id, list_id, source_object_key, contact_id, name, consent, metadata)
      select ${clientId}, ${listId}, * from given
      on conflict (client_id, list_id, source_object_key) do update set
        contact_id = excluded.contact_id, name = excluded.name, consent = excluded.consent,
        metadata = excluded.metadata, removed_at = null, updated_at = now()
      where (m.contact_id, m.name, m.consent, m.metadata, m.removed_at)
        is distinct from (excluded.contact_id, excluded.name, excluded.consent, excluded.metadata, null)
      returning xmax = 0 as created
    )
    select count(*) filter (where created) as created, count(*) filter (where not created) as updated,
      (select count(*) from given) as matched
    from written
  `.execute(trx);
  return counted[0]!;
}

// Look-ups are laterals with a limit: always one index probe a row, also where the tables have just
// been filled and the planner knows nothing of them yet. As plain joins 10,000 rows took 27 s then.
export function joinContact(clientId: number, kind = sql`cross join`, on = sql``) {
  return sql`${kind} lateral (
    select id, email_given from contacts where client_id = ${clientId} and email = r.email limit 1
  ) c ${on}`;
}

/** A person is mailed at the address as it was last spelled. */
export async function upsertContacts(
  trx: Trx,
  clientId: number,
  rows: RawBuilder<unknown>,
): Promise<void> {
  await sql`
    with respelled as materialized (
      select c.id, r.email, r.email_given
      from ${rows} ${joinContact(clientId)}
      where c.email_given <> r.email_given
    ),
    -- Locked in order first: an update takes its rows in any.
    held as materialized (
      select c.id, r.email_given
      from respelled r join contacts c on c.client_id = ${clientId} and c.id = r.id
        and c.email = r.email -- not where the person was erased while we waited
      order by r.email
      for no key update of c
    )
    update contacts c set email_given = r.email_given, updated_at = now()
    from held r where c.client_id = ${clientId} and c.id = r.id
  `.execute(trx);
  await sql`
    insert into contacts (client_id, email, email_given, name)
    select ${clientId}, r.email, r.email_given, r.name
    from ${rows} ${joinContact(clientId, sql`left join`, sql`on true`)}
    where c.id is null
    order by r.email
    on conflict (client_id, email) where email is not null do nothing
  `.execute(trx);
}

/**
 * Takes out the active memberships of these contacts under other keys, and returns the consent they
 * had: a contact that moves to a new key takes its consent along.
 */
async function removeSuperseded(
  trx: Trx,
  clientId: number,
  listId: number,
  rows: RawBuilder<unknown>,
): Promise<{ contact_id: number; consent: Consent }[]> {
  const { rows: superseded } = await sql<{ contact_id: number; consent: Consent }>`
    update list_members m set removed_at = clock_timestamp(), updated_at = now()
    -- The rows stay where they are: the list's lock is ours.
    where m.ctid = any (array(
      select held.row
      from ${rows}
      ${joinContact(clientId)}
      cross join lateral (
        select ctid as row, source_object_key from list_members
        where client_id = ${clientId} and contact_id = c.id and list_id = ${listId} and removed_at is null
        limit 1
      ) held
      where held.source_object_key <> r.source_object_key
    ))
    returning m.contact_id, m.consent
  `.execute(trx);
  return superseded;
}
