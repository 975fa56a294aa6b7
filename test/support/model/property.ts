// The property itself: the same in CI, with a few runs, and in `npm run test:large`, with hundreds.
import fc from 'fast-check';
import type { Harness } from '../harness.ts';
import { stepsOf, type Step } from './calls.ts';
import { ModelRun } from './run.ts';

/**
 * A failure prints seed, path and the steps; SEED=<number> SEED_PATH=<path> does that run again, without
 * SEED_PATH all of them. Steps are drawn as one array, so that no more is needed to repeat them.
 */
export async function expectModelHolds(
  h: Harness,
  { runs, most, kills = false }: { runs: number; most: number; kills?: boolean },
): Promise<void> {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  const path = process.env.SEED_PATH;
  console.log(`model: SEED=${seed}${kills ? ', with kills' : ''}`);
  await fc.assert(
    fc.asyncProperty(stepsOf({ most, kills }), (steps) => ModelRun.of(h, steps, { kills })),
    {
      seed,
      ...(path !== undefined && { path }),
      numRuns: runs,
      // A run that failed by its timing alone may pass when it is repeated; shrinking must come to an end.
      interruptAfterTimeLimit: 600_000,
    },
  );
}

export type { Step };
