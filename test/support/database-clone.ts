// A database cloned from the migrated template, for tests that keep it from one test to the next.
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';

export interface ClonedDatabase {
  name: string;
  url: string;
  drop(): Promise<void>;
}

export async function cloneDatabase(): Promise<ClonedDatabase> {
  const name = `rosterpost_test_${randomBytes(6).toString('hex')}`;
  await administer(
    `create database ${name} template ${inject('templateDatabase')} strategy file_copy`,
  );
  const url = new URL(inject('adminUrl'));
  url.pathname = `/${name}`;
  return { name, url: url.href, drop: () => administer(`drop database ${name} with (force)`) };
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
