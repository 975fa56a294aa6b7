// PostgreSQL itself fails: it is killed and started again, with and without the mail server meanwhile
// taking what was in hand; it has no connection left. A server of its own, so nobody else is hurt.
import { beforeAll, expect, it } from 'vitest';
import pg from 'pg';
import { expectNothingLost, useFaultStageWithServer } from '../support/fault-stage.ts';
import { until } from '../support/until.ts';

const { stage, server } = useFaultStageWithServer({ max_connections: '60' });

beforeAll(async () => {
  stage.keepWorker();
  await stage.untilWorkers(1);
});

it('killed and started again, three times', async () => {
  const mailing = stage.mail('restarts');
  for (let n = 0; n < 3; n++) {
    await stage.untilMore(250);
    await server.stopNow();
    await server.start();
  }
  await expectNothingLost(stage, await stage.settle(await mailing));
});

it('no connection left for a while', async () => {
  const mailing = stage.mail('exhausted');
  await stage.untilMore(300);
  const held = await takeAllConnections();
  const { status } = await until('the API to say so', async () => {
    const answer = await stage.api('GET', '/api/senders');
    return answer.status >= 500 && answer;
  });
  expect(status).toBe(503);
  await Promise.all(held.map((client) => client.end()));
  await expectNothingLost(stage, await stage.settle(await mailing));
});

it('away for longer than a worker may be silent: no worker is taken for dead', async () => {
  stage.keepWorker();
  await stage.untilWorkers(2);
  const mailing = stage.mail('long away');
  await stage.untilMore(300);
  await server.stopNow();
  const since = performance.now();
  await until('the limit to pass', () => performance.now() - since > 3000);
  await server.start();
  await expectNothingLost(stage, await stage.settle(await mailing));
  await stage.untilWorkers(2);
});

/** Ends the sessions of API and worker and is faster than they are. */
async function takeAllConnections(): Promise<pg.Client[]> {
  const held: pg.Client[] = [];
  const administrator = await open();
  for (;;) {
    await administrator.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where application_name like 'rosterpost%' or application_name = 'test'`,
    );
    const before = held.length;
    for (let client = await tryToOpen(); client; client = await tryToOpen()) held.push(client);
    if (held.length === before && (await othersOf(administrator)) === 0) break;
  }
  return [...held, administrator];
}

async function othersOf(administrator: pg.Client): Promise<number> {
  const { rows } = await administrator.query(
    `select count(*)::integer as others from pg_stat_activity where application_name like 'rosterpost%'`,
  );
  return rows[0].others;
}

async function open(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: server.url, application_name: 'hoarder' });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** Undefined where the server has no connection to give. */
function tryToOpen(): Promise<pg.Client | undefined> {
  return open().catch(() => undefined);
}
