// Commands client create, set and show: a client's name and its context callback.
import { Option, type Command } from 'commander';
import * as v from 'valibot';
import type { CallbackPolicy } from '../callback/post.ts';
import { createClient, findClient, renameClient } from '../clients/clients.ts';
import {
  ContextCallbackInput,
  getContextCallback,
  putContextCallback,
} from '../clients/context-callback.ts';
import type { Database } from '../database/connect.ts';
import { invalid } from '../errors.ts';
import { issuesToErrors } from '../fields.ts';
import { readConfig } from '../config.ts';
import { createExampleTypes } from '../emails-queue/email-types.ts';
import { print, withDatabase } from './with-database.ts';

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

export function addClientCommands(program: Command): void {
  const client = program.command('client').description('clients (tenants)');
  client
    .command('create <key>')
    .description('makes a client')
    .option('--name <name>', 'name for people')
    .option('--no-example-types', 'without the email types welcome, notification and report')
    .action((key: string, { name, exampleTypes }: { name?: string; exampleTypes: boolean }) =>
      withDatabase(async ({ db }) => {
        await db.transaction().execute(async (trx) => {
          const made = await createClient(trx, key, name);
          if (exampleTypes) await createExampleTypes(trx, made.id);
        });
        print(`Client "${key}" created. Next: rosterpost key create ${key}, then PUT a sender.`);
      }),
    );

  client
    .command('set <key>')
    .description('changes what is given')
    .option('--name <name>', 'name for people')
    .option('--callback-url <url>', 'where personal contexts are fetched; "" for nowhere')
    .addOption(
      new Option('--callback-secret <secret>', 'signs those requests: whsec_…').conflicts(
        'newCallbackSecret',
      ),
    )
    .option('--new-callback-secret', 'makes a random one and prints it')
    .action((key: string, options: ClientOptions) =>
      withDatabase(async ({ db }) => {
        for (const line of await setClient(db, key, options, readConfig().callback)) print(line);
      }),
    );
  client
    .command('show <key>')
    .description('its name and its context callback')
    .option('--secret', 'and the secret of the callback')
    .action((key: string, options: { secret?: boolean }) =>
      withDatabase(async ({ db }) => {
        for (const line of await clientLines(db, key, options)) print(line);
      }),
    );
}
