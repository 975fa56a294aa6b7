// Random stories of lists, sends, people and workers, against a model of what must become of them.
import { it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { expectModelHolds } from '../support/model/property.ts';

const h = useHarness();

it('whatever happens in whatever order: the law, the snapshot, one mail each', async () => {
  await expectModelHolds(h, { runs: 12, most: 25 });
});

it('also where workers are killed', async () => {
  await expectModelHolds(h, { runs: 2, most: 20, kills: true });
});
