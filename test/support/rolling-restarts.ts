// Ten deploys during a mailing, as an orchestrator makes them: a new worker is up before an old one is
// told to end. Small in CI, at full size in `npm run test:large`.
import { expect } from 'vitest';
import { expectExactlyOnce, type FaultStage } from './fault-stage.ts';
import type { Mailing } from './mailing.ts';

const RESTARTS = 10;
const LONGEST_MS = 600_000;

export async function expectRestartsUnnoticed(stage: FaultStage): Promise<void> {
  let workers = [stage.startWorker(), stage.startWorker()];
  await stage.untilWorkers(2);
  const mailing = keepMailing(stage);
  for (let n = 0; n < RESTARTS; n++) {
    await stage.untilMore(20);
    const [oldest, ...others] = workers;
    workers = [...others, stage.startWorker()];
    await stage.untilWorkers(3);
    expect(await oldest!.stop()).toBe(0);
  }
  for (const one of await mailing.end()) {
    await expectExactlyOnce(stage, await stage.settle(one, LONGEST_MS));
  }
  for (const worker of workers) expect(await worker.stop()).toBe(0);
}

/** A mailing, slowed down to last, and another one where a slow machine takes longer to restart. */
function keepMailing(stage: FaultStage): { end(): Promise<Mailing[]> } {
  const slow = stage.sink.misbehave('dot', { delayMs: 300 });
  const ending = new AbortController();
  const mail = async () => {
    const mailings: Mailing[] = [];
    do {
      const mailing = await stage.mail(`rolling restarts ${mailings.length}`);
      mailings.push(mailing);
      await stage.settle(mailing, LONGEST_MS);
    } while (!ending.signal.aborted);
    return mailings;
  };
  const done = mail();
  return {
    end: () => {
      ending.abort();
      slow.end();
      return done;
    },
  };
}
