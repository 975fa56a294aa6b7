// A database for the test file, cloned from the migrated template, empty before each test.
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, inject } from 'vitest';
import { connect, type Connection, type Database } from '../../src/database/connect.ts';
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
    await deleteEverything(database.db, database.pool);
  });

  afterAll(async () => {
    await database.close();
    // A connection that a test left open would make this fail: the leak is the test's fault.
    await administer(`drop database ${name}`);
  });

  return database;
}

async function deleteEverything(db: Database, pool: pg.Pool): Promise<void> {
  void db;
  await pool.query(`
    delete from message_recipients; delete from single_emails; delete from messages;
    delete from send_chunks; delete from send_recipients; delete from sends;
    delete from list_unsubscribes; delete from list_members; delete from recipient_lists;
    delete from suppressions; delete from contacts; delete from senders; delete from api_keys;
    delete from clients; delete from workers; delete from graphile_worker._private_jobs;
  `);
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
