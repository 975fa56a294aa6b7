// Erasing a person: memberships, contexts, names, addresses in old messages. What is left counts and
// protects: their messages without anything personal, and hashes of the address that keep suppressions and
// the recipient's own unsubscribes, should the address come back. Mail that is queued for the person is
// skipped as `suppressed`; running sends go on.
import { sql } from 'kysely';
import type { Address } from '../address.ts';
import type { Database, Trx } from '../database/connect.ts';
import { isDeadlock } from '../database/failures.ts';
import { removeFromTypes } from '../emails-queue/email-types.ts';
import { notFound } from '../errors.ts';

/** Lists joined, or locks taken crosswise by a worker, while the person is being erased: once more. */
const TRIES = 10;

/** @throws not_found where the address stands nowhere */
export async function eraseContact(
  db: Database,
  clientId: number,
  address: Address,
): Promise<void> {
  for (let left = TRIES; left > 0; left--) {
    try {
      if (await db.transaction().execute((trx) => erase(trx, clientId, address))) return;
    } catch (error) {
      if (left === 1 || !isDeadlock(error)) throw error;
    }
  }
  throw new Error('the person kept joining lists while being erased');
}

/** @returns false where the person has joined a list meanwhile */
async function erase(trx: Trx, clientId: number, { email }: Address): Promise<boolean> {
  const contact = await trx
    .selectFrom('contacts')
    .select('id')
    .where('client_id', '=', clientId)
    .where('email', '=', email)
    .executeTakeFirst();
  const locked = contact ? await lockLists(trx, clientId, contact.id) : [];
  // Nobody can become a member with a contact that is locked so.
  await sql`
    select from contacts where client_id = ${clientId} and email = ${email} for update
  `.execute(trx);
  if (contact && (await listsOf(trx, clientId, contact.id)).some((id) => !locked.includes(id))) {
    return false;
  }
  const hashed = await forgetSuppressed(trx, clientId, email, contact?.id);
  const mailed = await eraseSingles(trx, clientId, email);
  const registered = await removeFromTypes(trx, clientId, email);
  if (contact) {
    await eraseMemberships(trx, clientId, contact.id);
    await eraseFromSends(trx, clientId, contact.id);
    await sql`
      update contacts set email = null, email_given = null, name = null, attributes = '{}',
        unsubscribed_at = null, erased_at = now(), updated_at = now()
      where client_id = ${clientId} and id = ${contact.id}
    `.execute(trx);
  } else if (!hashed && !mailed && !registered) {
    throw notFound('The contact');
  }
  return true;
}

async function listsOf(trx: Trx, clientId: number, contactId: number): Promise<number[]> {
  const rows = await trx
    .selectFrom('list_members')
    .select('list_id')
    .distinct()
    .where('client_id', '=', clientId)
    .where('contact_id', '=', contactId)
    .execute();
  return rows.map((row) => row.list_id);
}

/** Lists before contacts, as their writers take them. */
async function lockLists(trx: Trx, clientId: number, contactId: number): Promise<number[]> {
  const ids = await listsOf(trx, clientId, contactId);
  await sql`
    select from recipient_lists where client_id = ${clientId} and id = any (${ids}::bigint[])
    order by id for no key update
  `.execute(trx);
  return ids;
}

/** @returns whether the address was suppressed; what the recipient has unsubscribed from is remembered as all */
async function forgetSuppressed(
  trx: Trx,
  clientId: number,
  email: string,
  contactId: number | undefined,
): Promise<boolean> {
  await sql`
    insert into suppressions (client_id, address_hash, unsubscribed_at)
    select ${clientId}::integer, address_hash(${clientId}::integer, ${email}), left_at
    from (
      select min(at) as left_at from (
        select unsubscribed_at as at from contacts
        where client_id = ${clientId} and id = ${contactId ?? null}
        union all
        select unsubscribed_at from list_unsubscribes
        where client_id = ${clientId} and contact_id = ${contactId ?? null}
      ) own
    ) earliest
    where left_at is not null
    on conflict (client_id, address_hash) do update set
      unsubscribed_at = coalesce(suppressions.unsubscribed_at, excluded.unsubscribed_at)
  `.execute(trx);
  const { rows } = await sql`
    update suppressions set email = null, note = null, updated_at = now()
    where client_id = ${clientId} and address_hash = address_hash(${clientId}::integer, ${email})
      and email is not null
    returning 1
  `.execute(trx);
  return rows.length > 0;
}

async function eraseMemberships(trx: Trx, clientId: number, contactId: number): Promise<void> {
  await sql`
    with unsubscribes as (
      delete from list_unsubscribes where client_id = ${clientId} and contact_id = ${contactId}
    )
    delete from list_members where client_id = ${clientId} and contact_id = ${contactId}
  `.execute(trx);
}

/**
 * Messages keep their state. The member's key may be personal, too, and what a mail server said may name
 * the address. Snapshot rows without a message are looked for in the sends that are still prepared.
 */
async function eraseFromSends(trx: Trx, clientId: number, contactId: number): Promise<void> {
  await sql`
    with place as materialized (
      select send_id, position, id::text as name from messages
      where client_id = ${clientId} and contact_id = ${contactId} and send_id is not null
        and (source_object_key not like 'erased:%' or last_reply is not null)
      union all
      select r.send_id, r.position, uuid7()::text
      from sends s
      join send_recipients r on r.client_id = s.client_id and r.send_id = s.id
      where s.client_id = ${clientId} and s.completed_at is null and r.contact_id = ${contactId}
        and r.source_object_key not like 'erased:%'
        and (s.open_chunks is null or exists (
          select from send_chunks k
          where k.client_id = s.client_id and k.send_id = s.id and k.prepared_at is null))
        and not exists (
          select from messages m
          where m.client_id = r.client_id and m.send_id = r.send_id and m.position = r.position)
    ),
    contexts as (
      -- Kept, empty: a message that waits for its context is never claimed.
      update fetched_contexts f set context = '{}' from place p
      where f.client_id = ${clientId} and f.send_id = p.send_id and f.position = p.position
    ),
    snapshot as (
      update send_recipients r set name = null, context = null, source_object_key = 'erased:' || p.name
      from place p
      where r.client_id = ${clientId} and r.send_id = p.send_id and r.position = p.position
    )
    update messages m set source_object_key = 'erased:' || p.name, last_reply = null
    from place p
    where m.client_id = ${clientId} and m.send_id = p.send_id and m.position = p.position
  `.execute(trx);
}

/**
 * The address goes from every email; one that went to nobody else loses its contents, too.
 * @returns whether there was one
 */
async function eraseSingles(trx: Trx, clientId: number, email: string): Promise<boolean> {
  const { rows } = await sql`
    with erased as (
      update message_recipients set email = null, email_given = null, last_reply = null
      where client_id = ${clientId} and email = ${email}
      returning message_id, ordinal
    ),
    hers as (
      select distinct message_id from erased e
      where not exists (
        select from message_recipients r
        where r.client_id = ${clientId} and r.message_id = e.message_id and r.email is not null
          and (r.message_id, r.ordinal) not in (select message_id, ordinal from erased))
    ),
    contents as (
      update single_emails s set email_data = '{}', subject = null
      from hers where s.client_id = ${clientId} and s.message_id = hers.message_id
    ),
    attachments as (
      delete from message_attachments a using hers
      where a.client_id = ${clientId} and a.message_id = hers.message_id
    ),
    replies as (
      update messages m set last_reply = null
      from (select distinct message_id from erased) e
      where m.client_id = ${clientId} and m.id = e.message_id
    )
    select from erased
  `.execute(trx);
  return rows.length > 0;
}

/** No statement of ours runs for longer. */
const SWEEP_AFTER_SECONDS = 120;
/** Of one pass. */
const MOST_SWEPT = 50;

/**
 * What a statement that was under way put back after the person was erased: a membership, a mail server's
 * reply. Looked for once, when all such have ended.
 */
export async function sweepErased(db: Database): Promise<void> {
  const erased = await db
    .selectFrom('contacts')
    .select(['client_id', 'id'])
    .where('erased_at', '<', sql<Date>`now() - make_interval(secs => ${SWEEP_AFTER_SECONDS})`)
    .where('erased_at', 'is not', null)
    .where('swept_at', 'is', null)
    .orderBy('erased_at')
    .limit(MOST_SWEPT)
    .execute();
  for (const { client_id, id } of erased) {
    await db.transaction().execute(async (trx) => {
      await lockLists(trx, client_id, id);
      await eraseMemberships(trx, client_id, id);
      await eraseFromSends(trx, client_id, id);
      await sql`
        update contacts set swept_at = now() where client_id = ${client_id} and id = ${id}
      `.execute(trx);
    });
  }
}
