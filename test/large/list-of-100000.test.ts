// A list of 100,000: the trigger costs what its snapshot costs, the send drains to the end, and the
// worker's memory does not grow with the list.
import { expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { drainListOf, fillList } from '../support/list-of.ts';
import { measureTrigger } from '../support/trigger-cost.ts';

const h = useHarness();

it('answers the trigger within 1.5 times the bare snapshot, plus 20 ms', async () => {
  await fillList(h, 'large', 100_000);
  const { trigger, bare } = await measureTrigger(h, 'large', 5);
  process.stdout.write(`trigger ${trigger.toFixed(0)} ms, bare snapshot ${bare.toFixed(0)} ms\n`);
  expect(trigger).toBeLessThanOrEqual(1.5 * bare + 20);
});

it('drains to the end with flat memory, each member once', async () => {
  const small = await drainListOf(h, 10_000);
  const large = await drainListOf(h, 100_000);
  process.stdout.write(
    `worker memory: ${small.toFixed(0)} MiB at 10,000, ${large.toFixed(0)} MiB at 100,000\n`,
  );
  expect(large).toBeLessThanOrEqual(1.25 * small);
});
