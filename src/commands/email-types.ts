// Commands email-type: the registered types of a client, on the command line.
import type { Command } from 'commander';
import * as v from 'valibot';
import { findClient } from '../clients/clients.ts';
import type { Database } from '../database/connect.ts';
import {
  deleteEmailType,
  EmailTypeInput,
  listEmailTypes,
  putEmailType,
  type EmailType,
} from '../emails-queue/email-types.ts';
import { invalid } from '../errors.ts';
import { isKey, issuesToErrors } from '../fields.ts';
import { MAX_LIMIT } from '../paging.ts';
import { print, withDatabase } from './with-database.ts';

export interface EmailTypeOptions {
  description?: string;
  to?: string[];
  cc?: string[];
  bcc?: string[];
  from?: string;
  active?: boolean;
}

/** A line per type: name, state, then its recipients. */
export async function emailTypeLines(db: Database, clientKey: string): Promise<string[]> {
  const client = await findClient(db, clientKey);
  const lines: string[] = [];
  for (let cursor: string | undefined; ;) {
    const page = await listEmailTypes(db, client.id, { cursor, limit: MAX_LIMIT });
    lines.push(...page.rows.map(line));
    if (page.next_cursor === null) return lines;
    cursor = page.next_cursor;
  }
}

function line(type: EmailType): string {
  const { email_type, is_active, to_addresses, cc_addresses, bcc_addresses, from_email } = type;
  const list = (label: string, addresses: string[]) => `${label} ${addresses.join(', ') || '-'}`;
  return [
    email_type,
    is_active ? 'active' : 'inactive',
    list('to', to_addresses),
    list('cc', cc_addresses),
    list('bcc', bcc_addresses),
    `from ${from_email ?? '(default sender)'}`,
  ].join('\t');
}

/** Registers or changes a type. @throws validation_failed, not_found, sender_not_found */
export async function setEmailType(
  db: Database,
  clientKey: string,
  name: string,
  options: EmailTypeOptions,
): Promise<'registered' | 'updated'> {
  const client = await findClient(db, clientKey);
  if (!isKey(name))
    throw invalid([{ path: 'TYPE', message: 'must be 1 to 255 characters without "/"' }]);
  const parsed = v.safeParse(EmailTypeInput, {
    description: options.description,
    to_addresses: options.to,
    cc_addresses: options.cc,
    bcc_addresses: options.bcc,
    from_email: options.from,
    is_active: options.active,
  });
  if (!parsed.success) throw invalid(issuesToErrors(parsed.issues));
  const { created } = await db
    .transaction()
    .execute((trx) => putEmailType(trx, client.id, name, parsed.output));
  return created ? 'registered' : 'updated';
}

/** @throws not_found */
export async function removeEmailType(
  db: Database,
  clientKey: string,
  name: string,
): Promise<void> {
  const client = await findClient(db, clientKey);
  await db.transaction().execute((trx) => deleteEmailType(trx, client.id, name));
}

export function addEmailTypeCommands(program: Command): void {
  const emailType = program.command('email-type').description('types of single emails');
  emailType
    .command('list <client>')
    .description('the types of a client')
    .action((clientKey: string) =>
      withDatabase(async ({ db }) => {
        for (const line of await emailTypeLines(db, clientKey)) print(line);
      }),
    );
  emailType
    .command('set <client> <type>')
    .description('registers a type or changes what is given')
    .option('--description <text>', 'for people')
    .option('--to <addresses>', 'default To, separated by commas; "" for none', readAddresses)
    .option('--cc <addresses>', 'default Cc', readAddresses)
    .option('--bcc <addresses>', 'default Bcc', readAddresses)
    .option('--from <sender>', 'id of the sender')
    .option('--active', 'takes new emails')
    .option('--no-active', 'refuses new emails')
    .action((clientKey: string, name: string, options: EmailTypeOptions) =>
      withDatabase(async ({ db }) => {
        const done = await setEmailType(db, clientKey, name, options);
        print(`Email type "${name}" ${done}.`);
      }),
    );
  emailType
    .command('delete <client> <type>')
    .description('refuses new emails of the type; those that are queued stay')
    .action((clientKey: string, name: string) =>
      withDatabase(async ({ db }) => {
        await removeEmailType(db, clientKey, name);
        print('Deleted.');
      }),
    );
}

function readAddresses(text: string): string[] {
  return text === '' ? [] : text.split(',').map((address) => address.trim());
}
