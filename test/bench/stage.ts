// The stage of a benchmark: a PostgreSQL of its own with default durability, a migrated database, a
// client and an API in a process of its own. Everything ends with `close`, the folder included.
import { mkdtemp, chmod, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import type pg from 'pg';
import { createApiKey } from '../../src/clients/api-keys.ts';
import { createClient } from '../../src/clients/clients.ts';
import { connect } from '../../src/database/connect.ts';
import { startEmbedded } from '../../src/database/embedded.ts';
import { migrate } from '../../src/database/migrate.ts';
import { createLogger } from '../../src/log.ts';
import { caller, type Api } from '../support/harness.ts';
import { startApiProcess } from '../support/processes.ts';

const BATCH = 10_000;
const SETTINGS = {
  max_connections: '200',
  shared_preload_libraries: 'pg_stat_statements',
  'pg_stat_statements.track': 'none', // but where statements are what is measured
};

export interface Stage {
  /** Closed with everything else; for what the benchmark writes meanwhile. */
  folder: string;
  databaseUrl: string;
  pool: pg.Pool;
  api: Api;
  url: string;
  key: string;
  /** Of the server's first process and of the API. */
  pids: { postgres: number; api: number };
  /** Resident memory of the API right now, in MiB. */
  memory(): Promise<number>;
  /** Members m1… of a list, unless it has them already. */
  fillList(list: string, count: number): Promise<void>;
  close(): Promise<void>;
}

export async function openStage(): Promise<Stage> {
  const folder = await mkdtemp(path.join(tmpdir(), 'rosterpost-bench-'));
  const closing: (() => Promise<unknown>)[] = [
    () => rm(folder, { recursive: true, force: true, maxRetries: 5 }),
  ];
  const close = async () => {
    for (let last = closing.pop(); last; last = closing.pop())
      await last().catch((error: Error) => console.error(error.message));
  };
  try {
    await chmod(folder, 0o755); // the server may run as another account; its own folder is closed
    const postgres = await startEmbedded({ folder, settings: SETTINGS });
    closing.push(() => postgres.stop());
    const connection = connect({ url: postgres.url, log: createLogger('silent') });
    closing.push(() => connection.close());
    await migrate(connection);
    const key = await connection.db
      .transaction()
      .execute(async (trx) => createApiKey(trx, await createClient(trx, 'bench')));
    const apiProcess = await startApiProcess({ DATABASE_URL: postgres.url });
    closing.push(() => apiProcess.stop());
    const api = caller(() => apiProcess.url, key);
    await api('PUT', '/api/senders/courses', { email: 'courses@school.example' });
    const filled = new Set<string>();
    return {
      folder,
      databaseUrl: postgres.url,
      pool: connection.pool,
      api,
      url: apiProcess.url,
      key,
      pids: { postgres: await postmasterOf(folder), api: apiProcess.child.pid! },
      memory: async () => Math.round(await apiProcess.memory()),
      fillList: async (list, count) => {
        if (filled.has(list)) return;
        filled.add(list);
        await importMembers(apiProcess.url, key, list, count);
        // As autovacuum does it within minutes, and lists are older than that.
        await connection.pool.query('analyze contacts, list_members');
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function postmasterOf(folder: string): Promise<number> {
  return Number(
    (await readFile(path.join(folder, 'postgres/postmaster.pid'), 'utf8')).split('\n')[0],
  );
}

async function importMembers(url: string, key: string, list: string, count: number): Promise<void> {
  const response = await fetch(`${url}/api/recipient-lists/${list}/members/import`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'text/csv' },
    body: Readable.from(csvOf(count)) as never,
    duplex: 'half',
  });
  const answer = await response.text();
  if (response.status !== 200) throw new Error(`the list was not filled: ${answer}`);
}

function* csvOf(count: number): Generator<Buffer> {
  yield Buffer.from('source_object_key,email,name\n');
  for (let at = 0; at < count; at += BATCH) {
    const lines = Array.from({ length: Math.min(BATCH, count - at) }, (_, index) => {
      const n = at + index + 1;
      return `m${n},m${n}@list.example,Member ${n}\n`;
    });
    yield Buffer.from(lines.join(''));
  }
}
