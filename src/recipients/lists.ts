// Recipient lists. A list is made by the first write that names it; a deleted one is hidden, its
// running sends finish, and its key can be used again for a new list.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database, Trx } from '../database/connect.ts';
import type { JsonObject } from '../database/schema.ts';
import { notFound } from '../errors.ts';
import { freeData, line } from '../fields.ts';
import { page, type Page, type PageRequest } from '../paging.ts';

export const ListInput = v.strictObject({
  name: v.optional(v.nullable(line(200))),
  type: v.optional(v.nullable(line(200))),
  metadata: v.optional(freeData()),
});
export type ListInput = v.InferOutput<typeof ListInput>;

export interface RecipientList {
  key: string;
  name: string | null;
  type: string | null;
  metadata: JsonObject;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = ['key', 'name', 'type', 'metadata', 'created_at', 'updated_at'] as const;

/**
 * Makes the list where it is missing and locks its row until the transaction ends: writers of one
 * list wait for each other, and lists are locked before contacts, so none of them deadlock.
 */
export async function lockList(
  trx: Trx,
  clientId: number,
  key: string,
): Promise<{ id: number; created: boolean }> {
  const created = await trx
    .insertInto('recipient_lists')
    .values({ client_id: clientId, key })
    .onConflict((conflict) => conflict.doNothing())
    .returning('id')
    .executeTakeFirst();
  if (created) {
    await takeOverUnsubscribes(trx, clientId, key, created.id);
    return { id: created.id, created: true };
  }
  const locked = await trx
    .selectFrom('recipient_lists')
    .select('id')
    .where('client_id', '=', clientId)
    .where('key', '=', key)
    .where('deleted_at', 'is', null)
    .forNoKeyUpdate()
    .executeTakeFirst();
  // Deleted between the two statements: now the key is free.
  return locked ? { id: locked.id, created: false } : lockList(trx, clientId, key);
}

/** Held by who unsubscribes somebody from a list of that key, and by who makes one that takes its place. */
export async function lockUnsubscribes(trx: Trx, clientId: number, key: string): Promise<void> {
  await sql`
    select pg_advisory_xact_lock(hashtextextended(${`unsubscribes:${clientId}:${key}`}, 0))
  `.execute(trx);
}

/**
 * Who has left a list of that key has left the one that takes its place: deleting a list and making it
 * again must not subscribe anybody. Waits for unsubscribes that are being written.
 */
async function takeOverUnsubscribes(
  trx: Trx,
  clientId: number,
  key: string,
  listId: number,
): Promise<void> {
  const earlier = await trx
    .selectFrom('recipient_lists')
    .select('id')
    .where('client_id', '=', clientId)
    .where('key', '=', key)
    .where('deleted_at', 'is not', null)
    .execute();
  if (earlier.length === 0) return;
  const ids = earlier.map((one) => one.id);
  await lockUnsubscribes(trx, clientId, key);
  await sql`
    insert into list_unsubscribes (client_id, contact_id, list_id, unsubscribed_at)
    select client_id, contact_id, ${listId}, min(unsubscribed_at)
    from list_unsubscribes where client_id = ${clientId} and list_id = any (${ids}::bigint[])
    group by client_id, contact_id
  `.execute(trx);
}

/** Creates the list or changes the fields that are given. */
export async function putList(
  trx: Trx,
  clientId: number,
  key: string,
  input: ListInput,
): Promise<{ list: RecipientList; created: boolean }> {
  const { id, created } = await lockList(trx, clientId, key);
  const list = await trx
    .updateTable('recipient_lists')
    .set({
      ...(input.name !== undefined && { name: input.name }),
      ...(input.type !== undefined && { type: input.type }),
      ...(input.metadata !== undefined && { metadata: JSON.stringify(input.metadata) }),
      updated_at: sql`now()`,
    })
    .where('client_id', '=', clientId)
    .where('id', '=', id)
    .returning(COLUMNS)
    .executeTakeFirstOrThrow();
  return { list, created };
}

/** @throws not_found */
export async function findList(
  db: Database,
  clientId: number,
  key: string,
): Promise<{ id: number; list: RecipientList }> {
  const found = await db
    .selectFrom('recipient_lists')
    .select(['id', ...COLUMNS])
    .where('client_id', '=', clientId)
    .where('key', '=', key)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
  if (!found) throw notFound(`The recipient list "${key}"`);
  const { id, ...list } = found;
  return { id, list };
}

export async function countActiveMembers(
  db: Database,
  clientId: number,
  listId: number,
): Promise<number> {
  const { count } = await db
    .selectFrom('list_members')
    .select((build) => build.fn.countAll<number>().as('count'))
    .where('client_id', '=', clientId)
    .where('list_id', '=', listId)
    .where('removed_at', 'is', null)
    .executeTakeFirstOrThrow();
  return count;
}

export function listLists(
  db: Database,
  clientId: number,
  request: PageRequest,
): Promise<Page<RecipientList>> {
  const query = db
    .selectFrom('recipient_lists')
    .select(COLUMNS)
    .where('client_id', '=', clientId)
    .where('deleted_at', 'is', null);
  return page(
    request,
    [v.string()],
    (list) => [list.key],
    (after, limit) =>
      query
        .$if(after !== undefined, (narrowed) => narrowed.where('key', '>', after![0]))
        .orderBy('key')
        .limit(limit)
        .execute(),
  );
}

/** @throws not_found */
export async function deleteList(trx: Trx, clientId: number, key: string): Promise<void> {
  const deleted = await trx
    .updateTable('recipient_lists')
    .set({ deleted_at: sql`now()` })
    .where('client_id', '=', clientId)
    .where('key', '=', key)
    .where('deleted_at', 'is', null)
    .returning('id')
    .executeTakeFirst();
  if (!deleted) throw notFound(`The recipient list "${key}"`);
}
