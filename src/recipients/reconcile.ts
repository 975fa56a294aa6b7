// Reconciling: a list is made equal to what the call says. Members are upserted as by bulk-upsert; then
// active members that the call does not name are taken out. A rejected row names its member, too: by its
// key or its address where one can be read, so a typo takes nobody off the list.
import { sql } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import { parseAddress } from '../address.ts';
import { findList } from './lists.ts';
import { readMembers, type RejectedMember } from './read-members.ts';
import { upsertMembers, type UpsertCounts } from './upsert-members.ts';

export interface ReconcileInput {
  members: unknown[];
  /** Default true. */
  remove_absent?: boolean | undefined;
  /** Default false: everything is done, counted, and undone. */
  dry_run?: boolean | undefined;
}

export interface ReconcileCounts extends UpsertCounts {
  /** Active members taken out for being absent; an old key whose person moved to another is not one. */
  removed: number;
  rejected: RejectedMember[];
}

export async function reconcileMembers(
  db: Database,
  clientId: number,
  listKey: string,
  { members: given, remove_absent = true, dry_run = false }: ReconcileInput,
): Promise<ReconcileCounts> {
  const { members, rejected } = readMembers(given);
  const keys = members.map((member) => member.source_object_key);
  const emails: string[] = [];
  for (const { index, source_object_key } of rejected) {
    if (source_object_key !== null) keys.push(source_object_key);
    const email = emailOf(given[index]);
    if (email !== undefined) emails.push(email);
  }
  const trx = await db.startTransaction().execute();
  try {
    const counts = await upsertMembers(trx, clientId, listKey, members);
    const removed = remove_absent ? await removeAbsent(trx, clientId, listKey, keys, emails) : 0;
    await (dry_run ? trx.rollback() : trx.commit()).execute();
    return { ...counts, removed, rejected };
  } catch (error) {
    if (!trx.isRolledBack && !trx.isCommitted)
      await trx
        .rollback()
        .execute()
        .catch(() => {});
    throw error;
  }
}

function emailOf(item: unknown): string | undefined {
  const given = (item as { email?: unknown } | null)?.email;
  const address = typeof given === 'string' ? parseAddress(given) : undefined;
  return typeof address === 'object' ? address.email : undefined;
}

async function removeAbsent(
  trx: Trx,
  clientId: number,
  listKey: string,
  keys: string[],
  emails: string[],
): Promise<number> {
  const { id: listId } = await findList(trx, clientId, listKey);
  const { numAffectedRows } = await sql`
    update list_members m set removed_at = clock_timestamp(), updated_at = now()
    where m.client_id = ${clientId} and m.list_id = ${listId} and m.removed_at is null
      and not exists (
        select from jsonb_array_elements_text(${JSON.stringify(keys)}::jsonb) named(key)
        where named.key = m.source_object_key)
      and not exists (
        select from jsonb_array_elements_text(${JSON.stringify(emails)}::jsonb) named(email)
        join contacts c on c.client_id = ${clientId} and c.email = named.email
        where c.id = m.contact_id)
  `.execute(trx);
  return Number(numAffectedRows ?? 0);
}
