// Commands key create, list and revoke.
import type { Command } from 'commander';
import { createApiKey, listApiKeys, revokeApiKey } from '../clients/api-keys.ts';
import { findClient } from '../clients/clients.ts';
import { print, withDatabase } from './with-database.ts';

export function addKeyCommands(program: Command): void {
  const key = program.command('key').description('API keys');
  key
    .command('create <client>')
    .description('makes a key and prints it, once')
    .option('--name <name>', 'what the key is for')
    .action((clientKey: string, { name }: { name?: string }) =>
      withDatabase(async ({ db }) => {
        const owner = await findClient(db, clientKey);
        print(await db.transaction().execute((trx) => createApiKey(trx, owner, name)));
      }),
    );
  key
    .command('list')
    .description('all keys, by their prefix')
    .action(() =>
      withDatabase(async ({ db }) => {
        for (const one of await listApiKeys(db)) {
          const used = one.last_used_at ? `used ${one.last_used_at.toISOString()}` : 'never used';
          const state = one.revoked_at ? `revoked ${one.revoked_at.toISOString()}` : 'live';
          print([one.prefix, one.client_key, one.name || '-', state, used].join('\t'));
        }
      }),
    );
  key
    .command('revoke <prefix>')
    .description('refuses a key from now on')
    .action((prefix: string) =>
      withDatabase(async ({ db }) => {
        await db.transaction().execute((trx) => revokeApiKey(trx, prefix));
        print('Revoked.');
      }),
    );
}
