// Contexts by callback while the provider times out, answers 500, 429 and garbage, resets connections,
// leaves members out and gives misfits, and a worker is killed in the middle.
import { it } from 'vitest';
import { expectCallbackRun } from '../support/callback-run.ts';
import { useHarness } from '../support/harness.ts';

const h = useHarness();

it('every member of 2,000 ends as its context was', async () => {
  await expectCallbackRun(h, { members: 2000, chunkSize: 50 });
}, 180_000);
