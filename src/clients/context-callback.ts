// Where a client's personal contexts are fetched from, and the secret that signs the requests (Standard
// Webhooks). There is always a secret. A new one counts from the next request on: the client takes both
// until then.
import { sql } from 'kysely';
import * as v from 'valibot';
import { urlFlaw, type CallbackPolicy } from '../callback/post.ts';
import type { Database, Trx } from '../database/connect.ts';
import { invalid } from '../errors.ts';

export const ContextCallbackInput = v.strictObject({
  url: v.optional(v.nullable(v.string())),
  /** Null makes a new random one. */
  secret: v.optional(
    v.nullable(
      v.pipe(v.string(), v.check(isSecret, 'must be whsec_ and 24 to 64 bytes in base64')),
    ),
  ),
});
export type ContextCallbackInput = v.InferOutput<typeof ContextCallbackInput>;

export interface ContextCallback {
  url: string | null;
  secret: string;
}

/** As the signing library reads it: standard base64 with its padding. */
function isSecret(text: string): boolean {
  const given = /^whsec_(.*)$/su.exec(text)?.[1];
  if (given === undefined) return false;
  const bytes = Buffer.from(given, 'base64');
  return bytes.toString('base64') === given && bytes.length >= 24 && bytes.length <= 64;
}

export function getContextCallback(db: Database, clientId: number): Promise<ContextCallback> {
  return db
    .selectFrom('clients')
    .select(['callback_url as url', 'callback_secret as secret'])
    .where('id', '=', clientId)
    .executeTakeFirstOrThrow();
}

/** What is absent stays as it is. @throws validation_failed where the URL may not be called */
export async function putContextCallback(
  trx: Trx,
  clientId: number,
  { url, secret }: ContextCallbackInput,
  policy: CallbackPolicy,
): Promise<ContextCallback> {
  const flaw = typeof url === 'string' ? urlFlaw(url, policy) : undefined;
  if (flaw !== undefined) throw invalid([{ path: 'url', message: flaw }]);
  return trx
    .updateTable('clients')
    .set({
      callback_url: url === undefined ? sql`callback_url` : url,
      callback_secret:
        secret === undefined ? sql`callback_secret` : (secret ?? sql`new_webhook_secret()`),
    })
    .where('id', '=', clientId)
    .returning(['callback_url as url', 'callback_secret as secret'])
    .executeTakeFirstOrThrow();
}
