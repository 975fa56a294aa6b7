// Commands client set and client show: a client's name and its context callback.
import * as v from 'valibot';
import type { CallbackPolicy } from '../callback/post.ts';
import { findClient, renameClient } from '../clients/clients.ts';
import {
  ContextCallbackInput,
  getContextCallback,
  putContextCallback,
} from '../clients/context-callback.ts';
import type { Database } from '../database/connect.ts';
import { invalid } from '../errors.ts';
import { issuesToErrors } from '../fields.ts';

export interface ClientOptions {
  name?: string;
  /** Empty for none. */
  callbackUrl?: string;
  callbackSecret?: string;
  newCallbackSecret?: boolean;
}

/** What is absent stays as it is. @returns lines for people. @throws validation_failed, not_found */
export async function setClient(
  db: Database,
  key: string,
  options: ClientOptions,
  policy: CallbackPolicy,
): Promise<string[]> {
  const { name, callbackUrl, callbackSecret, newCallbackSecret = false } = options;
  const client = await findClient(db, key);
  const input = v.safeParse(ContextCallbackInput, {
    url: callbackUrl === '' ? null : callbackUrl,
    secret: newCallbackSecret ? null : callbackSecret,
  });
  if (!input.success) throw invalid(issuesToErrors(input.issues));
  const { secret } = await db.transaction().execute(async (trx) => {
    if (name !== undefined) await renameClient(trx, client.id, name);
    return putContextCallback(trx, client.id, input.output, policy);
  });
  const lines = await clientLines(db, key, {});
  return newCallbackSecret ? [...lines, secretLine(secret)] : lines;
}

/** The secret only where it is asked for. @throws not_found */
export async function clientLines(
  db: Database,
  key: string,
  { secret: withSecret = false }: { secret?: boolean },
): Promise<string[]> {
  const client = await findClient(db, key);
  const { url, secret } = await getContextCallback(db, client.id);
  const lines = [`client\t${key}`, `name\t${client.name}`, `callback URL\t${url ?? '-'}`];
  return withSecret ? [...lines, secretLine(secret)] : lines;
}

function secretLine(secret: string): string {
  return `callback secret\t${secret}`;
}
