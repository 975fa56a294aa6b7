// Clients (tenants). Made by an operator on the command line, never through the API.
import type { Database, Trx } from '../database/connect.ts';
import { DomainError, invalid, notFound } from '../errors.ts';
import { isKey } from '../fields.ts';

export interface Client {
  id: number;
  key: string;
}

/** @throws validation_failed, client_exists */
export async function createClient(trx: Trx, key: string, name = key): Promise<Client> {
  if (!isKey(key)) {
    throw invalid([
      { path: 'KEY', message: 'must be 1 to 255 characters without "/" and control characters' },
    ]);
  }
  const created = await trx
    .insertInto('clients')
    .values({ key, name })
    .onConflict((conflict) => conflict.column('key').doNothing())
    .returning(['id', 'key'])
    .executeTakeFirst();
  if (!created) throw new DomainError('client_exists', `The client "${key}" exists already.`);
  return created;
}

export async function renameClient(trx: Trx, clientId: number, name: string): Promise<void> {
  await trx.updateTable('clients').set({ name }).where('id', '=', clientId).execute();
}

/** @throws not_found */
export async function findClient(db: Database, key: string): Promise<Client & { name: string }> {
  const found = await db
    .selectFrom('clients')
    .select(['id', 'key', 'name'])
    .where('key', '=', key)
    .executeTakeFirst();
  if (!found) throw notFound(`The client "${key}"`);
  return found;
}
