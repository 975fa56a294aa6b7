// 200 uploads at once: all stored or refused, none half, in the memory of a few.
import { expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { uploadAtOnce } from '../support/uploads-of.ts';

const h = useHarness();

it('200 at once of 5 MiB each, under 400 MB', async () => {
  const peak = await uploadAtOnce(h, 200);
  process.stdout.write(`API memory: ${peak.toFixed(0)} MiB at 200 uploads of 5 MiB\n`);
  expect(peak).toBeLessThan(400);
});
