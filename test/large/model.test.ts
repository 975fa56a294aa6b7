// Hundreds of the random stories of test/flows/model.test.ts.
import { it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { expectModelHolds } from '../support/model/property.ts';

const h = useHarness();
const longestMs = 3_000_000;

it('whatever happens in whatever order, 400 times', async () => {
  await expectModelHolds(h, { runs: 400, most: 40, longestMs });
});

it('also where workers are killed, 60 times', async () => {
  await expectModelHolds(h, { runs: 60, most: 30, kills: true, longestMs });
});
