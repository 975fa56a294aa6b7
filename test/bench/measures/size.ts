// Whether a large list costs more per mail, or a worker more memory, than a usual one: both sizes in
// alternation, each with workers of its own. The contexts are short: a million of them fit one trigger.
import type { Bench } from '../context.ts';
import { peakMemory } from '../cpu.ts';
import { shortPersonalOf as personal } from '../mailing.ts';
import type { Found, Row } from '../report.ts';
import { runSend, type Run } from '../run.ts';
import { median } from '../statistics.ts';
import { fastest, startWorkers } from '../workers.ts';

const RATE_TARGET = 0.95;
const MEMORY_TARGET = 1.1;
const MOST_MIB = 300;

interface Measured {
  run: Run;
  /** Of the worker process that had most, in MiB; undefined off Linux. */
  peak: number | undefined;
}

export async function measureSize(bench: Bench): Promise<Found> {
  const { members, large, rounds } = bench.options;
  const usual: Measured[] = [await measure(bench, 'everybody', members)];
  const larges: Measured[] = [];
  // A million takes long enough to be measured once.
  for (let round = 0; round < (large > 200_000 ? 1 : rounds - 1 || 1); round++) {
    larges.push(await measure(bench, 'large', large));
    usual.push(await measure(bench, 'everybody', members));
  }
  const of = `${large.toLocaleString('en')} over ${members.toLocaleString('en')}`;
  return {
    rows: [rateRow(of, usual, larges), ...memoryRows(of, usual, larges)],
    series: [
      { name: `ours, ${large.toLocaleString('en')}`, panel: 'large', ticks: larges[0]!.run.ticks },
    ],
  };
}

async function measure(bench: Bench, list: string, members: number): Promise<Measured> {
  await bench.stage.fillList(list, members);
  const workers = await startWorkers(bench, { processes: fastest(bench) });
  try {
    const run = await runSend(bench, workers, { list, members, personal });
    const peak = peakMemory(workers.pid);
    bench.say(`${members}: ${run.rate.toFixed(0)} mails/s, peak ${peak?.toFixed(0)} MiB`);
    return { run, peak };
  } finally {
    await workers.stop();
  }
}

function rateRow(of: string, usual: Measured[], larges: Measured[]): Row {
  const runs = {
    'usual, mails/s': usual.map(({ run }) => run.rate),
    'large, mails/s': larges.map(({ run }) => run.rate),
  };
  const [base, large] = Object.values(runs).map(median);
  const ratio = large! / base!;
  return {
    measure: `rate at ${of}`,
    figure: `${ratio.toFixed(2)} (${large!.toFixed(0)} over ${base!.toFixed(0)} mails/s)`,
    target: `≥ ${RATE_TARGET}`,
    reached: ratio >= RATE_TARGET,
    runs,
  };
}

function memoryRows(of: string, usual: Measured[], larges: Measured[]): Row[] {
  const runs = {
    'usual, MiB': usual.flatMap(({ peak }) => peak ?? []),
    'large, MiB': larges.flatMap(({ peak }) => peak ?? []),
  };
  if (runs['large, MiB'].length === 0) return [];
  const [base, large] = Object.values(runs).map(median);
  const ratio = large! / base!;
  return [
    {
      measure: `peak memory of a worker at ${of}`,
      figure: `${ratio.toFixed(2)} (${large!.toFixed(0)} over ${base!.toFixed(0)} MiB)`,
      target: `≤ ${MEMORY_TARGET}`,
      reached: ratio <= MEMORY_TARGET,
      runs,
    },
    {
      measure: 'peak memory of a worker, highest',
      figure: `${Math.max(...runs['large, MiB']).toFixed(0)} MiB`,
      target: `< ${MOST_MIB} MiB`,
      reached: Math.max(...runs['large, MiB']) < MOST_MIB,
    },
  ];
}
