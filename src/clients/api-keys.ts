// API keys: rp_<8>_<32> random letters and digits. Only a SHA-256 is stored, enough for 190 random
// bits; the first part is public and finds the row, the rest is compared in constant time. A client
// may hold several live keys, so one can be rotated without a gap.
import { createHash, randomInt, timingSafeEqual } from 'node:crypto';
import { sql } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import { notFound } from '../errors.ts';
import type { Client } from './clients.ts';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const SHAPE = /^(rp_[A-Za-z0-9]{8})_[A-Za-z0-9]{32}$/u;

export interface ApiKeyRow {
  client_key: string;
  prefix: string;
  name: string;
  created_at: Date;
  last_used_at: Date | null;
  revoked_at: Date | null;
}

/** Makes a key and returns it: the only time it is seen. */
export async function createApiKey(trx: Trx, client: Client, name = ''): Promise<string> {
  const prefix = `rp_${randomText(8)}`;
  const key = `${prefix}_${randomText(32)}`;
  await trx
    .insertInto('api_keys')
    .values({ client_id: client.id, prefix, key_sha256: sha256(key), name })
    .execute();
  return key;
}

function randomText(length: number): string {
  return Array.from({ length }, () => ALPHABET[randomInt(ALPHABET.length)]).join('');
}

function sha256(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}

/** The client a presented key speaks for; undefined for a key that is unknown or revoked. */
export async function authenticate(db: Database, presented: string): Promise<Client | undefined> {
  const prefix = SHAPE.exec(presented)?.[1];
  if (!prefix) return undefined;
  const row = await db
    .selectFrom('api_keys')
    .innerJoin('clients', 'clients.id', 'api_keys.client_id')
    .select(['clients.id', 'clients.key', 'api_keys.key_sha256', 'api_keys.last_used_at'])
    .where('api_keys.prefix', '=', prefix)
    .where('api_keys.revoked_at', 'is', null)
    .executeTakeFirst();
  if (!row || !timingSafeEqual(row.key_sha256, sha256(presented))) return undefined;
  await noteUse(db, prefix, row.last_used_at);
  return { id: row.id, key: row.key };
}

/** Kept to the hour, so that a busy key does not write a row per request. */
async function noteUse(db: Database, prefix: string, lastUsed: Date | null): Promise<void> {
  if (lastUsed && Date.now() - lastUsed.getTime() < 3_600_000) return;
  await db
    .updateTable('api_keys')
    .set({ last_used_at: sql`now()` })
    .where('prefix', '=', prefix)
    .where(sql<boolean>`last_used_at is null or last_used_at < now() - interval '1 hour'`)
    .execute();
}

export async function listApiKeys(db: Database): Promise<ApiKeyRow[]> {
  return db
    .selectFrom('api_keys')
    .innerJoin('clients', 'clients.id', 'api_keys.client_id')
    .select([
      'clients.key as client_key',
      'api_keys.prefix',
      'api_keys.name',
      'api_keys.created_at',
      'api_keys.last_used_at',
      'api_keys.revoked_at',
    ])
    .orderBy('clients.key')
    .orderBy('api_keys.created_at')
    .execute();
}

/** Revokes by prefix, or by the whole key. Repeatable. @throws not_found */
export async function revokeApiKey(trx: Trx, prefixOrKey: string): Promise<void> {
  const prefix = SHAPE.exec(prefixOrKey)?.[1] ?? prefixOrKey;
  const revoked = await trx
    .updateTable('api_keys')
    .set({ revoked_at: sql`coalesce(revoked_at, now())` })
    .where('prefix', '=', prefix)
    .returning('prefix')
    .executeTakeFirst();
  if (!revoked) throw notFound(`A key that begins with "${prefix.slice(0, 11)}"`);
}
