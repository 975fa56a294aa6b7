// The trigger beside the bare INSERT … SELECT of the same rows into the same table, for lists of growing
// size. No worker runs, and the sends are left behind: this is the last measure of a run.
import { measureTrigger } from '../../support/trigger-cost.ts';
import type { Bench } from '../context.ts';
import type { Found, Row } from '../report.ts';

const SIZES = [1000, 10_000, 100_000, 1_000_000];
const RATIO_TARGET = 1.3;
const MORE_MS = 20;
/** Odd, for a median that was measured; of a million fewer. */
const ROUNDS = 7;
const LARGE_ROUNDS = 3;

export async function measureTriggers(bench: Bench): Promise<Found> {
  const { stage, options } = bench;
  const rows: Row[] = [];
  const of = { api: stage.api, database: stage };
  for (const members of SIZES.filter((size) => size <= options.large)) {
    const list = `trigger-${members}`;
    await stage.fillList(list, members);
    await measureTrigger(of, list, 1, 'warm-up');
    const rounds = members > 100_000 ? LARGE_ROUNDS : ROUNDS;
    const { trigger, bare, runs } = await measureTrigger(of, list, rounds);
    const most = RATIO_TARGET * bare + MORE_MS;
    rows.push({
      measure: `trigger at ${members.toLocaleString('en')} over the bare INSERT … SELECT`,
      figure: `${(trigger / bare).toFixed(2)} × (${trigger.toFixed(0)} over ${bare.toFixed(0)} ms)`,
      target: `≤ ${RATIO_TARGET} × + ${MORE_MS} ms (${most.toFixed(0)} ms)`,
      reached: trigger <= most,
      runs: { 'trigger, ms': runs.trigger, 'bare, ms': runs.bare },
    });
    bench.say(`${rows.at(-1)!.measure}: ${rows.at(-1)!.figure}`);
  }
  return { rows };
}
