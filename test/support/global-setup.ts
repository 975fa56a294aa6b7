// One PostgreSQL for the whole run: the embedded one, TEST_DATABASE_URL, or with
// TEST_POSTGRES=container a Testcontainers one. Migrates a template database that each test file
// clones (14 ms), so tests never share rows.
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { connect } from '../../src/database/connect.ts';
import { startEmbedded } from '../../src/database/embedded.ts';
import { migrate } from '../../src/database/migrate.ts';
import { createLogger } from '../../src/log.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** A database of the server in which others may be made. */
    adminUrl: string;
    templateDatabase: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startServer();
  const template = `rosterpost_test_template_${process.pid}`;
  await administer(server.url, `create database ${template}`);
  const connection = connect({
    url: databaseUrl(server.url, template),
    log: createLogger('silent'),
  });
  await migrate(connection);
  await connection.close();
  project.provide('adminUrl', server.url);
  project.provide('templateDatabase', template);
  return async () => {
    await administer(server.url, `drop database ${template} with (force)`);
    await server.stop();
  };
}

async function startServer(): Promise<{ url: string; stop(): Promise<void> }> {
  const given = process.env.TEST_DATABASE_URL;
  if (given) return { url: given, stop: () => Promise.resolve() };
  if (process.env.TEST_POSTGRES === 'container') {
    const { PostgreSqlContainer } = await import('@testcontainers/postgresql');
    const container = await new PostgreSqlContainer('postgres:18').start();
    return { url: container.getConnectionUri(), stop: async () => void (await container.stop()) };
  }
  const folder = await mkdtemp(path.join(tmpdir(), 'rosterpost-test-'));
  await chmod(folder, 0o755); // the server may run as another account; its own folder is closed
  // Nothing of a test outlives it, so nothing needs to survive a power cut.
  const settings = { fsync: 'off', full_page_writes: 'off', max_connections: '200' };
  const embedded = await startEmbedded({ folder, settings });
  return {
    url: embedded.url,
    stop: async () => {
      await embedded.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function administer(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(statement);
  await client.end();
}

function databaseUrl(server: string, database: string): string {
  const url = new URL(server);
  url.pathname = `/${database}`;
  return url.href;
}
