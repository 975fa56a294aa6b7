// Contacts: people by address, one row per normalised address and client. Consent set by the client
// and an unsubscribe by the recipient are two columns: the first is upserted, the second is not.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database, Trx } from '../database/connect.ts';
import type { Consent, JsonObject } from '../database/schema.ts';
import { notFound } from '../errors.ts';
import { freeData, line } from '../fields.ts';
import type { Address } from '../address.ts';
import { findSuppression, type Suppression } from './suppressions.ts';

export const CONSENTS = ['subscribed', 'pending', 'unsubscribed'] as const;

export const ContactInput = v.strictObject({
  name: v.optional(v.nullable(line(200))),
  consent: v.optional(v.picklist(CONSENTS, `must be one of ${CONSENTS.join(', ')}`)),
  attributes: v.optional(freeData()),
});
export type ContactInput = v.InferOutput<typeof ContactInput>;

export interface Contact {
  email: string;
  name: string | null;
  /** What counts: `unsubscribed` once the recipient has unsubscribed, whatever was upserted. */
  consent: Consent;
  unsubscribed_at: Date | null;
  attributes: JsonObject;
  created_at: Date;
  updated_at: Date;
}

export interface Membership {
  list_key: string;
  source_object_key: string;
  consent: Consent;
}

const effectiveConsent = sql<Consent>`case when unsubscribed_at is null then consent else 'unsubscribed' end`;

/** The consent of a member `m`, `unsubscribed` once the recipient has unsubscribed from the list. */
export const memberConsent = sql<Consent>`case when exists (
  select from list_unsubscribes u
  where u.client_id = m.client_id and u.contact_id = m.contact_id and u.list_id = m.list_id
) then 'unsubscribed' else m.consent end`;

/** Creates the contact or changes the fields that are given. */
export async function putContact(
  trx: Trx,
  clientId: number,
  address: Address,
  input: ContactInput,
): Promise<{ contact: Contact; created: boolean }> {
  const attributes = input.attributes === undefined ? undefined : JSON.stringify(input.attributes);
  const changes = {
    email_given: address.given,
    ...(input.name !== undefined && { name: input.name }),
    ...(input.consent !== undefined && { consent: input.consent }),
    ...(attributes !== undefined && { attributes }),
  };
  const { created, ...contact } = await trx
    .insertInto('contacts')
    .values({ client_id: clientId, email: address.email, ...changes })
    .onConflict((conflict) =>
      conflict
        .columns(['client_id', 'email'])
        .where('email', 'is not', null)
        .doUpdateSet({ ...changes, updated_at: sql`now()` }),
    )
    .returning([
      sql<string>`email_given`.as('email'),
      'name',
      effectiveConsent.as('consent'),
      'unsubscribed_at',
      'attributes',
      'created_at',
      'updated_at',
      // xmax of a row version is 0 only where this statement inserted it.
      sql<boolean>`xmax = 0`.as('created'),
    ])
    .executeTakeFirstOrThrow();
  return { contact, created };
}

/** @throws not_found */
export async function getContact(
  db: Database,
  clientId: number,
  address: Address,
): Promise<{ contact: Contact; suppression: Suppression | undefined; lists: Membership[] }> {
  const found = await db
    .selectFrom('contacts')
    .select([
      'id',
      sql<string>`email_given`.as('email'),
      'name',
      effectiveConsent.as('consent'),
      'unsubscribed_at',
      'attributes',
      'created_at',
      'updated_at',
    ])
    .where('client_id', '=', clientId)
    .where('email', '=', address.email)
    .executeTakeFirst();
  if (!found) throw notFound('The contact');
  const { id, ...contact } = found;
  const lists = await db
    .selectFrom('list_members as m')
    .innerJoin('recipient_lists as l', (join) =>
      join.onRef('l.client_id', '=', 'm.client_id').onRef('l.id', '=', 'm.list_id'),
    )
    .select(['l.key as list_key', 'm.source_object_key', memberConsent.as('consent')])
    .where('m.client_id', '=', clientId)
    .where('m.contact_id', '=', id)
    .where('m.removed_at', 'is', null)
    .where('l.deleted_at', 'is', null)
    .orderBy('l.key')
    .execute();
  return { contact, suppression: await findSuppression(db, clientId, address), lists };
}
