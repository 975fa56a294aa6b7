// The stage of a benchmark: a PostgreSQL of its own with default durability, a migrated database, a
// client, an API in a process of its own and a mail server here. Everything ends with `close`.
import { mkdtemp, chmod, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { createApiKey } from '../../src/clients/api-keys.ts';
import { createClient } from '../../src/clients/clients.ts';
import { connect } from '../../src/database/connect.ts';
import { startEmbedded } from '../../src/database/embedded.ts';
import { migrate } from '../../src/database/migrate.ts';
import { createLogger } from '../../src/log.ts';
import { caller, someMembers, type Api } from '../support/harness.ts';
import { startApiProcess } from '../support/processes.ts';
import { SmtpSink } from '../support/smtp-sink.ts';

const BATCH = 10_000;

export interface Stage {
  databaseUrl: string;
  pool: pg.Pool;
  api: Api;
  url: string;
  key: string;
  sink: SmtpSink;
  /** Resident memory of the API right now, in MiB. */
  memory(): Promise<number>;
  /** Members m1… of a new list. */
  fillList(list: string, count: number): Promise<void>;
  close(): Promise<void>;
}

export async function openStage(): Promise<Stage> {
  const folder = await mkdtemp(path.join(tmpdir(), 'rosterpost-bench-'));
  await chmod(folder, 0o755); // the server may run as another account; its own folder is closed
  const postgres = await startEmbedded({ folder, settings: { max_connections: '200' } });
  const connection = connect({ url: postgres.url, log: createLogger('silent') });
  await migrate(connection);
  const key = await connection.db
    .transaction()
    .execute(async (trx) => createApiKey(trx, await createClient(trx, 'bench')));
  const sink = await new SmtpSink().start();
  sink.keepsBodies = false;
  const apiProcess = await startApiProcess({ DATABASE_URL: postgres.url });
  const api = caller(() => apiProcess.url, key);
  await api('PUT', '/api/senders/courses', { email: 'courses@school.example' });
  return {
    databaseUrl: postgres.url,
    pool: connection.pool,
    api,
    url: apiProcess.url,
    key,
    sink,
    memory: async () => Math.round(await apiProcess.memory()),
    fillList: async (list, count) => {
      const members = someMembers(count);
      for (let at = 0; at < count; at += BATCH) {
        await api('POST', `/api/recipient-lists/${list}/members/bulk-upsert`, {
          members: members.slice(at, at + BATCH),
        });
      }
    },
    close: async () => {
      await apiProcess.stop();
      await connection.close();
      await sink.stop();
      await postgres.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
