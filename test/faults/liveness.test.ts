// A worker that is taken for dead but is not: it was suspended, or only its sign of life fails. Another
// one takes over within the limit; the first claims nothing any more, records nothing over what was
// settled, and ends. Whose clock is wrong is not taken for dead.
import { afterEach, expect, it } from 'vitest';
import { rootFile } from '../../src/root.ts';
import {
  DEAD_AFTER_MS,
  expectExactlyOnce,
  expectNothingLost,
  useFaultStage,
} from '../support/fault-stage.ts';
import type { Policy } from '../support/mailing.ts';
import type { Process } from '../support/processes.ts';
import { until } from '../support/until.ts';

const stage = useFaultStage();
/** On a busy machine; workers look for dead ones every second. */
const TAKEN_OVER_WITHIN_MS = DEAD_AFTER_MS + 4000;

afterEach(() => {
  stage.postgres.forbid();
  stage.sink.mend();
});

it.each<[Policy, number]>([
  ['retry', 2],
  ['hold', 1],
])('suspended for longer than the limit, policy %s', async (policy, copies) => {
  const [first, second] = await startTwo();
  const mailing = stage.mail(`suspended ${policy}`, { policy });
  await stage.untilMore(300);
  // Some that it has handed over, and waits for the answer of.
  stage.sink.misbehave('dot', { delayMs: 300 }, { times: 40 });
  await stage.untilMore(50);
  first.signal('SIGSTOP');
  const since = performance.now();
  await until('it to be taken for dead', () => isStopped(first));
  expect(performance.now() - since).toBeLessThan(TAKEN_OVER_WITHIN_MS);
  await stage.settle(await mailing);
  const settled = await inDoubt();
  first.signal('SIGCONT');
  expect(await first.ended).not.toBe(0);
  expect(await inDoubt()).toEqual(settled);
  const account = await stage.settle(await mailing);
  await expectNothingLost(stage, account);
  expect(account.mostCopies).toBeLessThanOrEqual(copies);
  expect(await second.stop()).toBe(0);
});

it('only its sign of life is cut', async () => {
  const [first, second] = await startTwo();
  const mailing = stage.mail('sign of life');
  await stage.untilMore(300);
  const { application_name: name } = await rowOf(first);
  stage.postgres.forbid(({ opening }) => opening.includes(`${name} liveness`));
  const since = performance.now();
  await until('it to be taken for dead', () => isStopped(first));
  expect(performance.now() - since).toBeLessThan(TAKEN_OVER_WITHIN_MS);
  expect(await first.ended).not.toBe(0);
  await expectNothingLost(stage, await stage.settle(await mailing));
  expect(await second.stop()).toBe(0);
});

it.each([10, -10])('a clock %i minutes off changes nothing', async (minutes) => {
  const [first, second] = await startTwo({
    NODE_OPTIONS: `--import=${rootFile('test/support/shifted-clock.ts')}`,
    CLOCK_SHIFT_MS: String(minutes * 60_000),
  });
  stage.sink.misbehave('rcpt', { reply: '450 4.2.1 busy' }, { rate: 0.3, times: 100 });
  const mailing = await stage.mail(`clock ${minutes}`);
  await expectExactlyOnce(stage, await stage.settle(mailing));
  await stage.untilWorkers(2);
  expect(await Promise.all([first.stop(), second.stop()])).toEqual([0, 0]);
});

/** The first with more of an environment. */
async function startTwo(env?: Record<string, string>): Promise<[Process, Process]> {
  const two: [Process, Process] = [stage.startWorker(env), stage.startWorker()];
  await stage.untilWorkers(2);
  return two;
}

async function rowOf({ child }: Process) {
  const { rows } = await stage.pool.query(
    'select application_name, stopped_at from workers where pid = $1 order by id desc limit 1',
    [child.pid],
  );
  return rows[0] as { application_name: string; stopped_at: Date | null };
}

async function isStopped(worker: Process): Promise<boolean> {
  return (await rowOf(worker)).stopped_at !== null;
}

/** What became of the messages that were unknown. */
async function inDoubt(): Promise<unknown[]> {
  const { rows } = await stage.pool.query(
    `select id, state, attempts, last_reply, settled_at from messages where was_unknown order by id`,
  );
  return rows;
}
