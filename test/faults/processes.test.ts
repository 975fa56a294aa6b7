// Processes are killed and stopped in the middle of a mailing: workers leave at most what they had in
// hand in doubt, the API leaves nothing half done.
import { expect, it } from 'vitest';
import { expectExactlyOnce, expectNothingLost, useFaultStage } from '../support/fault-stage.ts';
import { until } from '../support/until.ts';

const stage = useFaultStage();
/** As many as there are mail connections. */
const MOST_IN_HAND = 30;

it('kill -9 of a worker with another one running, policy retry', async () => {
  const [first, second] = [stage.startWorker(), stage.startWorker()];
  await stage.untilWorkers(2);
  const mailing = stage.mail('killed beside another');
  await stage.untilMore(500);
  await first.kill();
  const account = await stage.settle(await mailing);
  await expectNothingLost(stage, account);
  expect(account).toMatchObject({ unknown: 0 }); // sent once more
  expect(await inDoubt()).toBeLessThanOrEqual(MOST_IN_HAND);
  expect(await second.stop()).toBe(0);
});

it('kill -9 of the only worker, another one started after, policy hold', async () => {
  const before = await inDoubt();
  const first = stage.startWorker();
  const mailing = stage.mail('killed alone', { policy: 'hold' });
  await stage.untilMore(500);
  await first.kill();
  const second = stage.startWorker();
  const account = await stage.settle(await mailing);
  await expectNothingLost(stage, account);
  expect(account.duplicates).toBe(0);
  expect((await inDoubt()) - before).toBeLessThanOrEqual(MOST_IN_HAND);
  expect(await second.stop()).toBe(0);
});

it('SIGTERM in the middle: finished or handed back', async () => {
  const first = stage.startWorker();
  const mailing = stage.mail('stopped');
  await stage.untilMore(500);
  expect(await first.stop()).toBe(0);
  const second = stage.startWorker();
  await expectExactlyOnce(stage, await stage.settle(await mailing));
  expect(await second.stop()).toBe(0);
});

it('kill -9 of the API while it takes a mailing: each request asked again is taken once', async () => {
  const mailing = stage.mail('api killed');
  await until('the trigger', async () => (await taken('api killed')).sends === 1);
  for (const emails of [20, 80, 140]) {
    await until('more emails', async () => (await taken('api killed')).emails >= emails);
    await stage.apiProcess.kill();
    await stage.startApi();
  }
  const worker = stage.startWorker();
  await expectExactlyOnce(stage, await stage.settle(await mailing));
  expect(await taken('api killed')).toEqual({ sends: 1, emails: 200 });
  expect(await worker.stop()).toBe(0);
});

/** Messages that were unknown at some time. */
async function inDoubt(): Promise<number> {
  const { rows } = await stage.pool.query(
    'select count(*)::integer as messages from messages where was_unknown',
  );
  return rows[0].messages;
}

async function taken(name: string): Promise<{ sends: number; emails: number }> {
  const { rows } = await stage.pool.query(
    `select (select count(*)::integer from sends where send_key = $1) as sends,
       (select count(*)::integer from single_emails where idempotency_key like $1 || ':%') as emails`,
    [name],
  );
  return rows[0];
}
