// Suppressions: addresses that get no mail of a client, whatever the send. Found by a hash of the
// address, so that they outlive the person's erasure. Looked at when messages are made and again
// when one is claimed for sending, so one that arrives in between wins.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database, Trx } from '../database/connect.ts';
import type { SuppressionReason } from '../database/schema.ts';
import { notFound } from '../errors.ts';
import { line } from '../fields.ts';
import { page, type Page, type PageRequest } from '../paging.ts';
import type { Address } from '../address.ts';

export const SUPPRESSION_REASONS = ['hard_bounce', 'complaint', 'manual'] as const;

export const SuppressionInput = v.strictObject({
  reason: v.picklist(SUPPRESSION_REASONS, `must be one of ${SUPPRESSION_REASONS.join(', ')}`),
  note: v.optional(v.nullable(line(1000))),
});
export type SuppressionInput = v.InferOutput<typeof SuppressionInput>;

export interface Suppression {
  email: string | null;
  reason: SuppressionReason;
  note: string | null;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = [
  'email',
  sql<SuppressionReason>`reason`.as('reason'),
  'note',
  'created_at',
  'updated_at',
] as const;

function addressHash(clientId: number, address: Address) {
  return sql<Buffer>`address_hash(${clientId}::integer, ${address.email})`;
}

/** Creates the suppression or changes the fields that are given. */
export async function putSuppression(
  trx: Trx,
  clientId: number,
  address: Address,
  input: SuppressionInput,
): Promise<{ suppression: Suppression; created: boolean }> {
  const changes = {
    email: address.email,
    reason: input.reason,
    ...(input.note !== undefined && { note: input.note }),
  };
  const { created, ...suppression } = await trx
    .insertInto('suppressions')
    .values({ client_id: clientId, address_hash: addressHash(clientId, address), ...changes })
    .onConflict((conflict) =>
      conflict
        .columns(['client_id', 'address_hash'])
        .doUpdateSet({ ...changes, updated_at: sql`now()` }),
    )
    .returning([
      ...COLUMNS,
      // As it was before this statement: only an unsubscribe may have been remembered.
      sql<boolean>`not exists (
        select from suppressions earlier
        where earlier.client_id = suppressions.client_id and earlier.reason is not null
          and earlier.address_hash = suppressions.address_hash)`.as('created'),
    ])
    .executeTakeFirstOrThrow();
  return { suppression, created };
}

export function findSuppression(
  db: Database,
  clientId: number,
  address: Address,
): Promise<Suppression | undefined> {
  return db
    .selectFrom('suppressions')
    .select(COLUMNS)
    .where('client_id', '=', clientId)
    .where('address_hash', '=', addressHash(clientId, address))
    .where('reason', 'is not', null)
    .executeTakeFirst();
}

export async function listSuppressions(
  db: Database,
  clientId: number,
  request: PageRequest,
): Promise<Page<Suppression>> {
  const query = db
    .selectFrom('suppressions')
    .select(COLUMNS)
    .select(sql<string>`encode(address_hash, 'hex')`.as('hash'))
    .where('client_id', '=', clientId)
    .where('reason', 'is not', null);
  const hash = v.pipe(v.string(), v.regex(/^([0-9a-f]{2})*$/u));
  const found = await page(
    request,
    [hash],
    (row: Suppression & { hash: string }) => [row.hash],
    (after, limit) =>
      query
        .$if(after !== undefined, (narrowed) =>
          narrowed.where('address_hash', '>', sql<Buffer>`decode(${after![0]}, 'hex')`),
        )
        .orderBy('address_hash')
        .limit(limit)
        .execute(),
  );
  return { ...found, rows: found.rows.map(({ hash: _hash, ...suppression }) => suppression) };
}

/** What the recipient did stays: an unsubscribe that is remembered with it. @throws not_found */
export async function deleteSuppression(
  trx: Trx,
  clientId: number,
  address: Address,
): Promise<void> {
  const suppression = sql`
    client_id = ${clientId} and address_hash = ${addressHash(clientId, address)} and reason is not null`;
  const { rows } = await sql`
    with kept as (
      update suppressions set reason = null, note = null, updated_at = now()
      where ${suppression} and unsubscribed_at is not null
      returning 1
    ),
    deleted as (
      delete from suppressions where ${suppression} and unsubscribed_at is null returning 1
    )
    select from kept union all select from deleted
  `.execute(trx);
  if (rows.length === 0) throw notFound('The suppression');
}
