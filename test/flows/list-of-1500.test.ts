// The full-size runs of test/large, small: three chunks through a worker process of its own.
import { expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { drainListOf, fillList } from '../support/list-of.ts';
import { measureTrigger } from '../support/trigger-cost.ts';

const h = useHarness();

it('drains a list of 1,500 through a worker process, each member once', async () => {
  expect(await drainListOf(h, 1500)).toBeGreaterThan(0);
});

it('measures the trigger beside the bare snapshot', async () => {
  await fillList(h, 'small', 1500);
  const { trigger, bare } = await measureTrigger(h, 'small', 2);
  expect(trigger).toBeGreaterThan(0);
  expect(bare).toBeGreaterThan(0);
});
