// What recipients decide by their links: to leave a list, to leave everything of a client, or to confirm.
// An unsubscribe stands apart from the consent that the client sets, and only the recipient's own
// confirmation takes it back. Every function is repeatable; who was erased, and what is gone, is passed
// over in silence.
import { sql, type RawBuilder } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import { lockUnsubscribes } from './lists.ts';
import type { LinkRef } from './links.ts';

/** What a page may say: names, and what has been decided already. Never the address. */
export interface Subscription {
  client_name: string;
  /** The list's name, else its key; null where the link is about no list. */
  list_name: string | null;
  has_left_list: boolean;
  has_left_all: boolean;
}

/** Undefined where the client is gone. */
export async function readSubscription(
  db: Database,
  { client_id, contact_id, list_id }: LinkRef,
): Promise<Subscription | undefined> {
  const { rows } = await sql<Subscription>`
    select k.name as client_name, coalesce(l.name, l.key) as list_name,
      u.contact_id is not null as has_left_list,
      coalesce(c.unsubscribed_at, s.unsubscribed_at) is not null as has_left_all
    from clients k
    left join contacts c on c.client_id = k.id and c.id = ${contact_id}
    left join suppressions s
      on s.client_id = k.id and s.address_hash = address_hash(k.id, c.email)
    left join recipient_lists l on l.client_id = k.id and l.id = ${list_id}
    left join list_unsubscribes u
      on u.client_id = k.id and u.contact_id = c.id and u.list_id = l.id
    where k.id = ${client_id}
  `.execute(db);
  return rows[0];
}

/** A list `l` and those that had its key before, or have it now: to people they are one list. */
function hasKeyOf(listId: number | null): RawBuilder<boolean> {
  return sql`l.key = (
    select named.key from recipient_lists named where named.client_id = l.client_id and named.id = ${listId})`;
}

/** From the link's list; from everything of the client where asked, or where it names no list. */
export async function unsubscribe(
  trx: Trx,
  { client_id, contact_id, list_id }: LinkRef,
  scope: 'list' | 'all',
): Promise<void> {
  if (scope === 'all' || list_id === null) {
    await sql`
      update contacts set unsubscribed_at = now(), updated_at = now()
      where client_id = ${client_id} and id = ${contact_id} and unsubscribed_at is null
    `.execute(trx);
    return;
  }
  const list = await trx
    .selectFrom('recipient_lists')
    .select('key')
    .where('client_id', '=', client_id)
    .where('id', '=', list_id)
    .executeTakeFirst();
  if (!list) return;
  // Who makes a list of that key anew waits for us, or we for them: then it is among them.
  await lockUnsubscribes(trx, client_id, list.key);
  await sql`
    insert into list_unsubscribes (client_id, contact_id, list_id)
    select c.client_id, c.id, l.id
    from contacts c join recipient_lists l on l.client_id = c.client_id
    where c.client_id = ${client_id} and c.id = ${contact_id} and ${hasKeyOf(list_id)}
    order by l.id
    on conflict do nothing
  `.execute(trx);
}

/**
 * The person wants the mail of this list: member and contact become `subscribed`, and the person's own
 * unsubscribe from the list and from everything is taken back. Locks the list, then the contact, as the
 * upsert of members does.
 */
export async function confirm(
  trx: Trx,
  { client_id, contact_id, list_id }: LinkRef,
): Promise<void> {
  await sql`
    select from recipient_lists where client_id = ${client_id} and id = ${list_id} for no key update
  `.execute(trx);
  await sql`
    update contacts set consent = 'subscribed', unsubscribed_at = null, updated_at = now()
    where client_id = ${client_id} and id = ${contact_id} and erased_at is null
      and (consent <> 'subscribed' or unsubscribed_at is not null)
  `.execute(trx);
  await forgetUnsubscribe(trx, client_id, contact_id);
  await sql`
    delete from list_unsubscribes u using recipient_lists l
    where u.client_id = ${client_id} and u.contact_id = ${contact_id}
      and l.client_id = u.client_id and l.id = u.list_id and ${hasKeyOf(list_id)}
  `.execute(trx);
  // Also under keys the person had before: what is known of them there counts when they come back.
  await sql`
    update list_members set consent = 'subscribed', updated_at = now()
    where client_id = ${client_id} and contact_id = ${contact_id} and consent <> 'subscribed'
      and list_id in (
        select l.id from recipient_lists l where l.client_id = ${client_id} and ${hasKeyOf(list_id)})
  `.execute(trx);
}

/** What is remembered of a person by their address's hash alone, since they were erased. */
async function forgetUnsubscribe(trx: Trx, clientId: number, contactId: number): Promise<void> {
  const theirs = sql`
    client_id = ${clientId} and unsubscribed_at is not null and address_hash = (
      select address_hash(client_id, email) from contacts
      where client_id = ${clientId} and id = ${contactId})`;
  await sql`delete from suppressions where ${theirs} and reason is null`.execute(trx);
  await sql`update suppressions set unsubscribed_at = null where ${theirs}`.execute(trx);
}
