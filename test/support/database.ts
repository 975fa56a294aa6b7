// A database for the test file, cloned from the migrated template, empty before each test.
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, inject } from 'vitest';
import { connect, type Connection } from '../../src/database/connect.ts';
import { createLogger } from '../../src/log.ts';

export interface TestDatabase extends Connection {
  url: string;
}

/** Call at the top of a test file; its members are set before the first test. */
export function useDatabase(): TestDatabase {
  const name = `rosterpost_test_${randomBytes(6).toString('hex')}`;
  const database = {} as TestDatabase;

  beforeAll(async () => {
    await administer(
      `create database ${name} template ${inject('templateDatabase')} strategy file_copy`,
    );
    const url = new URL(inject('adminUrl'));
    url.pathname = `/${name}`;
    const connection = connect({ url: url.href, log: createLogger('silent'), max: 40 });
    Object.assign(database, connection, { url: url.href });
  });

  beforeEach(async () => {
    await deleteEverything(database.pool);
  });

  afterAll(async () => {
    await database.close();
    // A connection that a test left open would make this fail: the leak is the test's fault.
    await administer(`drop database ${name}`);
  });

  return database;
}

// Children before parents.
const TABLES = [
  'import_rows',
  'imports',
  'message_attachments',
  'attachment_contents',
  'message_recipients',
  'single_emails',
  'messages',
  'fetched_contexts',
  'send_chunks',
  'send_recipients',
  'sends',
  'list_unsubscribes',
  'list_members',
  'recipient_lists',
  'suppressions',
  'contacts',
  'email_types',
  'senders',
  'api_keys',
  'clients',
  'workers',
  'transport_states',
  'transport_tokens',
  'delivery_pause',
  'graphile_worker._private_jobs',
];

/** Deleting a few rows from every table takes 1.5 ms, truncating them all 50; many rows the reverse. */
export async function deleteEverything(pool: pg.Pool): Promise<void> {
  const { rowCount } = await pool.query('select from contacts limit 2001');
  await pool.query(
    rowCount! > 2000
      ? `truncate ${TABLES.join(', ')}`
      : TABLES.map((table) => `delete from ${table};`).join(''),
  );
}

async function administer(statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: inject('adminUrl') });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
