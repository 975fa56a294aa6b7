// Contexts of 100,000 members by callback, from a provider that fails in every way.
import { it } from 'vitest';
import { expectCallbackRun } from '../support/callback-run.ts';
import { useHarness } from '../support/harness.ts';

const h = useHarness();

it('every member of 100,000 ends as its context was', async () => {
  await expectCallbackRun(h, { members: 100_000, chunkSize: 500 });
});
