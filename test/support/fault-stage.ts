// Where faults are played: one migrated database, an API and workers as processes, a mail server with a
// journal, and proxies before PostgreSQL and the mail server. The database is not emptied between the
// tests of a file, so that one API, one list and one worker serve them all.
import type pg from 'pg';
import { afterAll, beforeAll, expect, vi } from 'vitest';
import { createApiKey } from '../../src/clients/api-keys.ts';
import { createClient } from '../../src/clients/clients.ts';
import { connect } from '../../src/database/connect.ts';
import { createLogger } from '../../src/log.ts';
import { FaultySink } from './faulty-sink.ts';
import { cloneDatabase } from './database-clone.ts';
import { caller, someMembers } from './harness.ts';
import {
  accountFor,
  brokenCounts,
  prepareMailings,
  startMailing,
  untilSettled,
  type Account,
  type Mailing,
  type Policy,
  type Postbox,
} from './mailing.ts';
import { startApiProcess, startWorkerProcess, type ApiProcess, type Process } from './processes.ts';
import { RestartablePostgres } from './restartable-postgres.ts';
import { TcpProxy } from './tcp-proxy.ts';
import { until } from './until.ts';

/** What the product waits minutes for, in parts of a second. */
const TIMES = {
  RETRY_DELAYS: '0.2',
  RETRY_URGENT_DELAYS: '0.1',
  GREYLIST_SECONDS: '0.1',
  BREAKER_SECONDS: '0.3',
  HEARTBEAT_SECONDS: '0.5',
  DEAD_AFTER_SECONDS: '2',
  SHUTDOWN_GRACE_SECONDS: '10',
};
export const DEAD_AFTER_MS = 2000;

/** A mailing takes 6 s where nothing else runs. */
const TEST_TIMEOUT_MS = 240_000;

const MEMBERS = 2000;
const SINGLES = 200;

export interface FaultStage extends Postbox {
  /** Straight to the database, past the proxy. */
  pool: pg.Pool;
  sink: FaultySink;
  /** Before the database, for API and workers. */
  postgres: TcpProxy;
  /** Before the mail server, for workers. */
  smtp: TcpProxy;
  apiProcess: ApiProcess;
  startApi(): Promise<void>;
  startWorker(env?: Record<string, string>): Process;
  /** A worker that is started again when it ends by itself, as an orchestrator does. */
  keepWorker(): KeptWorker;
  /** Resolves when the workers that run are as many and can claim. */
  untilWorkers(count: number): Promise<void>;
  /** 2,000 members and 200 single mails. */
  mail(name: string, options?: { policy?: Policy }): Promise<Mailing>;
  /** Resolves when so many more mails were accepted. */
  untilMore(mails: number): Promise<void>;
  settle(mailing: Mailing, timeoutMs?: number): Promise<Account>;
  close(): Promise<void>;
}

export interface KeptWorker {
  /** SIGKILL; the next one is then started. */
  kill(): Promise<void>;
  /** SIGTERM, and no next one. */
  stop(): Promise<number | null>;
}

export interface StageOptions {
  databaseUrl: string;
  members?: number;
  singles?: number;
  env?: Record<string, string>;
  seed?: number;
}

/** Fills `stage` in, so that it can be handed out before it is open. */
export async function openFaultStage(
  options: StageOptions,
  stage = {} as FaultStage,
): Promise<FaultStage> {
  const { databaseUrl, members = MEMBERS, singles = SINGLES, env = {}, seed } = options;
  const connection = connect({
    url: databaseUrl,
    log: createLogger('silent'),
    max: 5,
    applicationName: 'test',
  });
  const { pool } = connection;
  const key = await connection.db
    .transaction()
    .execute(async (trx) => createApiKey(trx, await createClient(trx, 'acme')));
  const sink = await new FaultySink(seed).start();
  const postgres = await new TcpProxy(Number(new URL(databaseUrl).port)).start();
  const smtp = await new TcpProxy(sink.port).start();
  const through = new URL(databaseUrl);
  through.port = String(postgres.port);
  const environment = {
    LOG_LEVEL: process.env.TEST_LOG ?? 'silent',
    DATABASE_URL: through.href,
    SMTP_URL: `smtp://127.0.0.1:${smtp.port}`,
    ...TIMES,
    ...env,
  };
  const workers: Process[] = [];
  const keptWorkers: KeptWorker[] = [];
  Object.assign(stage, {
    pool,
    sink,
    postgres,
    smtp,
    key,
    api: caller(() => stage.url, key),
    startApi: async () => {
      stage.apiProcess = await startApiProcess({ DATABASE_URL: through.href });
      stage.url = stage.apiProcess.url;
    },
    startWorker: (more: Record<string, string> = {}) => {
      const worker = startWorkerProcess({ ...environment, ...more });
      workers.push(worker);
      return worker;
    },
    keepWorker: () => {
      const kept = keepRunning(() => stage.startWorker());
      keptWorkers.push(kept);
      return kept;
    },
    untilWorkers: async (count: number) => {
      await until(`${count} workers to run`, async () => {
        const { rows } = await pool.query(
          'select count(*)::integer as running from workers where stopped_at is null',
        );
        return rows[0].running === count;
      });
    },
    mail: (name: string, { policy }: { policy?: Policy } = {}) =>
      startMailing(stage, { name, singles, ...(policy && { policy }) }),
    untilMore: async (mails: number) => {
      const before = sink.journal.accepted;
      await until(`${mails} more mails`, () => sink.journal.accepted >= before + mails, 60_000);
    },
    settle: async (mailing: Mailing, timeoutMs?: number) => {
      await untilSettled(pool, mailing, timeoutMs);
      return accountFor(pool, mailing, sink.journal, sink.refused);
    },
    close: async () => {
      // Told to stop, none is started again; then killed, for nobody waits for what it does.
      for (const kept of keptWorkers) void kept.stop();
      await Promise.all([...workers, stage.apiProcess].map((one) => one.kill()));
      await Promise.all([postgres.stop(), smtp.stop(), sink.stop(), connection.close()]);
    },
  } satisfies Omit<FaultStage, 'url' | 'apiProcess'>);
  await stage.startApi();
  await prepareMailings(stage.api, someMembers(members));
  return stage;
}

function keepRunning(start: () => Process): KeptWorker {
  let wanted = true;
  let current: Process;
  const restart = () => {
    current = start();
    void current.ended.then(() => wanted && restart());
  };
  restart();
  return {
    kill: () => current.kill(),
    stop: () => {
      wanted = false;
      return current.stop();
    },
  };
}

/** Call at the top of a test file; its members are set before the first test. */
export function useFaultStage(options: Omit<StageOptions, 'databaseUrl'> = {}): FaultStage {
  vi.setConfig({ testTimeout: TEST_TIMEOUT_MS });
  const stage = {} as FaultStage;
  let drop: () => Promise<void>;

  beforeAll(async () => {
    const database = await cloneDatabase();
    drop = () => database.drop();
    await openFaultStage({ databaseUrl: database.url, ...options }, stage);
  });

  afterAll(async () => {
    await stage.close();
    await drop();
  });

  return stage;
}

/** As `useFaultStage`, over a PostgreSQL server of its own. */
export function useFaultStageWithServer(settings: Record<string, string> = {}): {
  stage: FaultStage;
  server: RestartablePostgres;
} {
  vi.setConfig({ testTimeout: TEST_TIMEOUT_MS });
  const stage = {} as FaultStage;
  const server = new RestartablePostgres(settings);

  beforeAll(async () => {
    await server.open();
    await openFaultStage({ databaseUrl: server.url }, stage);
  });

  afterAll(async () => {
    await stage.close();
    await server.close();
  });

  return { stage, server };
}

/** Holds after every fault: nothing lost, no copy that is not explained, all counts in order. */
export async function expectNothingLost(
  { pool }: Pick<FaultStage, 'pool'>,
  account: Account,
): Promise<void> {
  expect(account).toMatchObject({ lost: 0, unexplained: 0 });
  // Sent once more, never more often.
  expect(account.mostCopies).toBeLessThanOrEqual(2);
  expect(await brokenCounts(pool)).toEqual([]);
}

/** Holds where nobody can have been in doubt. */
export async function expectExactlyOnce(
  stage: Pick<FaultStage, 'pool'>,
  account: Account,
): Promise<void> {
  await expectNothingLost(stage, account);
  expect(account).toMatchObject({ unknown: 0, wasUnknown: 0, duplicates: 0 });
}
