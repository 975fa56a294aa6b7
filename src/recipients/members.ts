// Members of a list. One set-based upsert serves the single PUT and the bulk call: contacts first,
// in the order of their addresses, so that writers of different lists take the shared contact rows
// in one order; then memberships that have to give way; then the members themselves.
// In a list a key stands once and a contact is active once: the latest key given for a contact wins.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database, Trx } from '../database/connect.ts';
import type { Consent, JsonObject } from '../database/schema.ts';
import type { FieldError } from '../errors.ts';
import { address, freeData, issuesToErrors, jsonObject, key, line } from '../fields.ts';
import { findFlaws, textFlaw } from '../flaws.ts';
import { page, type Page, type PageRequest } from '../paging.ts';
import { CONSENTS, memberConsent } from './contacts.ts';
import { findList, lockList } from './lists.ts';

const fields = {
  email: address(),
  name: v.optional(v.nullable(line(200))),
  consent: v.optional(v.picklist(CONSENTS, `must be one of ${CONSENTS.join(', ')}`)),
  metadata: v.optional(freeData()),
};
export const MemberInput = v.strictObject(fields);
export const KeyedMemberInput = v.pipe(
  jsonObject(), // strictObject alone takes an array for an object without fields
  v.strictObject({ source_object_key: key(), ...fields }),
);
export type KeyedMember = v.InferOutput<typeof KeyedMemberInput>;

/** A member of a bulk call that was not taken, and why; the others were. */
export interface RejectedMember {
  index: number;
  source_object_key: string | null;
  message: string;
}

export interface UpsertCounts {
  created: number;
  updated: number;
  unchanged: number;
}

export interface Member {
  source_object_key: string;
  email: string | null;
  name: string | null;
  /** The member's own, `unsubscribed` once the recipient has unsubscribed from the list. */
  consent: Consent;
  metadata: JsonObject;
  created_at: Date;
  updated_at: Date;
  removed_at: Date | null;
}

/**
 * Reads the members of a bulk call: each on its own, so that one bad row rejects itself only. A key
 * or an address that stands twice in one call is rejected the second time.
 */
export function readMembers(input: readonly unknown[]): {
  members: KeyedMember[];
  rejected: RejectedMember[];
} {
  const members: KeyedMember[] = [];
  const rejected: RejectedMember[] = [];
  const keys = new Map<string, number>();
  const emails = new Map<string, number>();
  input.forEach((item, index) => {
    const reject = (message: string) =>
      rejected.push({ index, source_object_key: keyOf(item), message });
    const read = readMember(item);
    if ('message' in read) {
      reject(`${read.path || 'member'}: ${read.message}`);
      return;
    }
    const { member } = read;
    const twin = keys.get(member.source_object_key) ?? emails.get(member.email.email);
    if (twin !== undefined) {
      const what = keys.has(member.source_object_key) ? 'source_object_key' : 'email';
      reject(`${what}: stands already at index ${twin} of this call`);
      return;
    }
    keys.set(member.source_object_key, index);
    emails.set(member.email.email, index);
    members.push(member);
  });
  return { members, rejected };
}

function readMember(item: unknown): { member: KeyedMember } | FieldError {
  const [flaw] = findFlaws(item);
  if (flaw) return flaw;
  const parsed = v.safeParse(KeyedMemberInput, item);
  return parsed.success ? { member: parsed.output } : issuesToErrors(parsed.issues)[0]!;
}

function keyOf(item: unknown): string | null {
  const given = (item as { source_object_key?: unknown } | null)?.source_object_key;
  return typeof given === 'string' && textFlaw(given) === undefined ? given : null;
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
  const rows = JSON.stringify(
    members.map(({ email, metadata, ...rest }) => ({
      ...rest,
      email: email.email,
      email_given: email.given,
      metadata,
      has_name: rest.name !== undefined,
    })),
  );
  await upsertContacts(trx, clientId, rows);
  const superseded = await removeSuperseded(trx, clientId, listId, rows);
  // An object by contact id is looked into by key; joined as a set, 10,000 moves took 4 s.
  const carried = JSON.stringify(
    Object.fromEntries(superseded.map(({ contact_id, consent }) => [contact_id, consent])),
  );
  const written = await sql<{ created: boolean; count: number }>`
    with written as (
      insert into list_members as m (client_id, list_id, source_object_key, contact_id, name, consent, metadata)
      select ${clientId}, ${listId}, r.source_object_key, c.id,
        case when r.has_name then r.name else e.name end,
        coalesce(r.consent, case
          when e.contact_id = c.id and e.removed_at is null then e.consent
          when e.contact_id = c.id then strictest_consent(array[e.consent, k.consent, removed.consent])
          -- Another person has the key from now on, with their own consent where there is one.
          else strictest_consent(array[coalesce(k.consent, removed.consent, e.consent), removed.consent])
        end),
        coalesce(r.metadata, e.metadata, '{}')
      from ${recordset(rows)}
      ${joinContact(clientId)}
      cross join lateral (select ${carried}::jsonb ->> c.id::text as consent) k
      left join lateral (
        select contact_id, removed_at, name, consent, metadata from list_members
        where client_id = ${clientId} and list_id = ${listId} and source_object_key = r.source_object_key
        limit 1
      ) e on true
      left join lateral (
        select consent from list_members
        where client_id = ${clientId} and contact_id = c.id and list_id = ${listId}
          and removed_at is not null
        order by removed_at desc limit 1
      ) removed on true
      order by r.source_object_key
      on conflict (client_id, list_id, source_object_key) do update set
        contact_id = excluded.contact_id, name = excluded.name, consent = excluded.consent,
        metadata = excluded.metadata, removed_at = null, updated_at = now()
      where (m.contact_id, m.name, m.consent, m.metadata, m.removed_at)
        is distinct from (excluded.contact_id, excluded.name, excluded.consent, excluded.metadata, null)
      returning xmax = 0 as created
    )
    select created, count(*) as count from written group by created
  `.execute(trx);
  const count = (created: boolean) =>
    written.rows.find((row) => row.created === created)?.count ?? 0;
  return {
    created: count(true),
    updated: count(false),
    unchanged: members.length - count(true) - count(false),
  };
}

function recordset(rows: string) {
  return sql`jsonb_to_recordset(${rows}::jsonb) as r(
    source_object_key text, email text, email_given text, name text, has_name boolean,
    consent text, metadata jsonb)`;
}

// Look-ups are laterals with a limit: always one index probe a row, also where the tables have just
// been filled and the planner knows nothing of them yet. As plain joins 10,000 rows took 27 s then.
function joinContact(clientId: number, kind = sql`cross join`, on = sql``) {
  return sql`${kind} lateral (
    select id from contacts where client_id = ${clientId} and email = r.email limit 1
  ) c ${on}`;
}

/** A person is mailed at the address as it was last spelled. */
async function upsertContacts(trx: Trx, clientId: number, rows: string): Promise<void> {
  await sql`
    with respelled as materialized (
      select c.id, r.email_given
      from ${recordset(rows)}
      cross join lateral (
        select id, email_given from contacts
        where client_id = ${clientId} and email = r.email limit 1
      ) c
      where c.email_given <> r.email_given
      order by r.email
    )
    update contacts c set email_given = r.email_given, updated_at = now()
    from respelled r where c.client_id = ${clientId} and c.id = r.id
  `.execute(trx);
  await sql`
    insert into contacts (client_id, email, email_given, name)
    select ${clientId}, r.email, r.email_given, r.name
    from ${recordset(rows)} ${joinContact(clientId, sql`left join`, sql`on true`)}
    where c.id is null
    order by r.email
    on conflict (client_id, email) do nothing
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
  rows: string,
): Promise<{ contact_id: number; consent: Consent }[]> {
  const { rows: superseded } = await sql<{ contact_id: number; consent: Consent }>`
    update list_members m set removed_at = now(), updated_at = now()
    -- The rows stay where they are: the list's lock is ours.
    where m.ctid = any (array(
      select held.row
      from ${recordset(rows)}
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

/** Takes a member out of the list; the row stays. Repeatable, also for a key that never was. */
export async function removeMember(
  trx: Trx,
  clientId: number,
  listKey: string,
  sourceObjectKey: string,
): Promise<void> {
  const { id: listId } = await lockList(trx, clientId, listKey);
  await trx
    .updateTable('list_members')
    .set({ removed_at: sql`now()`, updated_at: sql`now()` })
    .where('client_id', '=', clientId)
    .where('list_id', '=', listId)
    .where('source_object_key', '=', sourceObjectKey)
    .where('removed_at', 'is', null)
    .execute();
}

export function listMembers(
  db: Database,
  clientId: number,
  listId: number,
  status: 'active' | 'removed',
  request: PageRequest,
): Promise<Page<Member>> {
  const query = selectMembers(db, clientId, listId).where(
    'm.removed_at',
    status === 'active' ? 'is' : 'is not',
    null,
  );
  return page(
    request,
    [v.string()],
    (member) => [member.source_object_key],
    (after, limit) =>
      query
        .$if(after !== undefined, (narrowed) =>
          narrowed.where('m.source_object_key', '>', after![0]),
        )
        .orderBy('m.source_object_key')
        .limit(limit)
        .execute(),
  );
}

/** Upserts one member and returns it. */
export async function putMember(
  trx: Trx,
  clientId: number,
  listKey: string,
  input: KeyedMember,
): Promise<{ member: Member; created: boolean }> {
  const counts = await upsertMembers(trx, clientId, listKey, [input]);
  const { id: listId } = await findList(trx, clientId, listKey);
  const member = await selectMembers(trx, clientId, listId)
    .where('m.source_object_key', '=', input.source_object_key)
    .executeTakeFirstOrThrow();
  return { member, created: counts.created === 1 };
}

function selectMembers(db: Database, clientId: number, listId: number) {
  return db
    .selectFrom('list_members as m')
    .innerJoin('contacts as c', (join) =>
      join.onRef('c.client_id', '=', 'm.client_id').onRef('c.id', '=', 'm.contact_id'),
    )
    .select(['m.source_object_key', 'c.email_given as email', 'm.name', 'm.metadata'])
    .select(['m.created_at', 'm.updated_at', 'm.removed_at', memberConsent.as('consent')])
    .where('m.client_id', '=', clientId)
    .where('m.list_id', '=', listId);
}
