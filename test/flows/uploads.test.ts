// Uploads at once: all stored or refused, none half, in bounded memory.
import { expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { uploadAtOnce } from '../support/uploads-of.ts';

const h = useHarness();

it('20 at once of 5 MiB each, under 400 MB', async () => {
  expect(await uploadAtOnce(h, 20)).toBeLessThan(400);
});
