// The property itself: the same in CI, with a few runs, and in `npm run test:large`, with hundreds.
import fc from 'fast-check';
import type { Harness } from '../harness.ts';
import { stepsOf } from './calls.ts';
import { ModelRun } from './run.ts';

interface Stories {
  runs: number;
  /** Steps of one. */
  most: number;
  kills?: boolean;
  /** Of all runs and of shrinking. */
  longestMs: number;
}

/**
 * A failure prints seed, path and the steps; SEED=<number> SEED_PATH=<path> does that run again, without
 * SEED_PATH all of them. Steps are drawn as one array, so that no more is needed to repeat them.
 */
export async function expectModelHolds(
  h: Harness,
  { runs, most, kills = false, longestMs }: Stories,
): Promise<void> {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  const path = process.env.SEED_PATH;
  process.stdout.write(`model: SEED=${seed}${kills ? ', with kills' : ''}\n`);
  await fc.assert(
    fc.asyncProperty(stepsOf({ most, kills }), (steps) => ModelRun.of(h, steps, { kills })),
    {
      seed,
      ...(path !== undefined && { path }),
      numRuns: runs,
      // Also of shrinking: then the smallest story so far is told.
      interruptAfterTimeLimit: longestMs,
    },
  );
}
