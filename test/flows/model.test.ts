// Random stories of lists, sends, people and workers, against a model of what must become of them.
import { it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { expectModelHolds } from '../support/model/property.ts';

const h = useHarness();

/** They take 50 s and 15 s; a failure takes its time to be shrunk. */
const longestMs = 150_000;
const timeout = longestMs + 60_000;

it(
  'whatever happens in whatever order: the law, the snapshot, one mail each',
  { timeout },
  async () => {
    await expectModelHolds(h, { runs: 10, most: 25, longestMs });
  },
);

it('also where workers are killed', { timeout }, async () => {
  await expectModelHolds(h, { runs: 2, most: 20, kills: true, longestMs });
});
