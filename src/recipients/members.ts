// Members of a list: what one is, reading them, writing or removing a single one. Many at once are
// written by upsert-members.ts, reconcile.ts and import.ts.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database, Trx } from '../database/connect.ts';
import type { Consent, JsonObject } from '../database/schema.ts';
import { page, type Page, type PageRequest } from '../paging.ts';
import { memberConsent } from './contacts.ts';
import { findList, lockList } from './lists.ts';
import type { KeyedMember } from './read-members.ts';
import { upsertMembers } from './upsert-members.ts';

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
    .set({ removed_at: sql`clock_timestamp()`, updated_at: sql`now()` })
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
