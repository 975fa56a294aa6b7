// The way to PostgreSQL fails: connections are cut, slow, silent; the database is read-only. The API
// says 503 or is asked again, the mail waits, and each goes out once.
import { afterEach, beforeAll, expect, it } from 'vitest';
import {
  expectExactlyOnce,
  expectNothingLost,
  useFaultStage,
  type KeptWorker,
} from '../support/fault-stage.ts';
import { until } from '../support/until.ts';

const stage = useFaultStage();
const ALL_CONNECTIONS = 30;
let worker: KeptWorker;

beforeAll(async () => {
  worker = stage.keepWorker();
  await stage.untilWorkers(1);
});

afterEach(() => {
  stage.postgres.heal();
});

it('connections cut and reset, again and again', async () => {
  const mailing = stage.mail('cut');
  for (let n = 0; n < 10; n++) {
    await stage.untilMore(150);
    if (n % 2 === 0) stage.postgres.cut();
    else stage.postgres.reset();
  }
  await expectNothingLost(stage, await stage.settle(await mailing));
});

it('20 ms away', async () => {
  stage.postgres.latencyMs = 10; // each way
  const mailing = await stage.mail('latency');
  await expectExactlyOnce(stage, await stage.settle(mailing));
});

it('half-open for a while, shorter than the limit', async () => {
  const mailing = stage.mail('half-open');
  await stage.untilMore(300);
  stage.postgres.silenceAll();
  await until('the heartbeat to be late', () => heartbeatIsOlder('1.2 s'));
  stage.postgres.heal();
  await expectNothingLost(stage, await stage.settle(await mailing));
});

it('read-only for a while: 503, and no mail that could not be recorded', async () => {
  const mailing = stage.mail('read-only');
  await stage.untilMore(300);
  await setReadOnly('on');
  const before = stage.sink.journal.accepted;
  const statuses: number[] = [];
  await until('the API to say 503', async () => {
    const { status } = await stage.api('PUT', '/api/senders/courses', {
      email: 'courses@school.example',
    });
    statuses.push(status);
    return statuses.slice(-3).every((one) => one === 503) && statuses.length >= 3;
  });
  await until('the heartbeat to be late', () => heartbeatIsOlder('1.2 s'));
  expect(stage.sink.journal.accepted - before).toBeLessThanOrEqual(ALL_CONNECTIONS);
  await setReadOnly('off');
  await expectNothingLost(stage, await stage.settle(await mailing));
});

it('connections that fall silent for ever: another worker takes over, the first one ends', async () => {
  await worker.stop();
  const first = stage.startWorker();
  const mailing = stage.mail('silent');
  await stage.untilMore(300);
  stage.postgres.silence();
  const other = stage.startWorker();
  expect(await first.ended).not.toBe(0);
  await expectNothingLost(stage, await stage.settle(await mailing));
  expect(await other.stop()).toBe(0);
});

async function heartbeatIsOlder(age: string): Promise<boolean> {
  const { rows } = await stage.pool.query(
    `select max(heartbeat_at) < clock_timestamp() - $1::interval as older
     from workers where stopped_at is null`,
    [age],
  );
  return rows[0].older;
}

/** As after a failover to a standby: sessions end, new ones find a server that takes no writes. */
async function setReadOnly(value: 'on' | 'off'): Promise<void> {
  await stage.pool.query(
    `do $$ begin
       execute format('alter database %I set default_transaction_read_only = ${value}', current_database());
     end $$`,
  );
  await stage.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and application_name like 'rosterpost%'`,
  );
}
