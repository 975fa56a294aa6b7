// From the POST to all sent, beside the three references, in alternation: a noisy machine is noisy for
// all of them. The straightforward way gets a tenth of the mails: its rate does not depend on them.
import { availableParallelism } from 'node:os';
import type { Bench } from '../context.ts';
import type { Found, Row } from '../report.ts';
import { runReference, runSend, type ReferenceName, type Run } from '../run.ts';
import { median } from '../statistics.ts';
import { startWorkers } from '../workers.ts';

const TARGETS = { pooled: 1.3, bare: 0.8, straightforward: 10 };
const NAMES: Record<ReferenceName, string> = {
  pooled: "nodemailer's pool, ready-made",
  bare: 'bare SMTPConnections, ready-made',
  straightforward: 'the straightforward way',
};
const FULL_PATH_TARGET = 2.5;

export async function measureEndToEnd(bench: Bench): Promise<Found> {
  const references: ReferenceName[] = ['pooled', 'bare', 'straightforward'];
  const runs = await alternate(bench, references, false);
  const ours = bestOf(runs);
  bench.best = ours;
  const rows: Row[] = references.map((name) => {
    const ratio = ours.rate / rateOf(runs.get(NAMES[name])!);
    return {
      measure: `end to end over ${NAMES[name]}`,
      figure: `${ratio.toFixed(2)} ×`,
      target: `≥ ${TARGETS[name]} ×`,
      reached: ratio >= TARGETS[name],
    };
  });
  return {
    rows: [...[...runs].map(([name, ones]) => rowOf(name, ones)), ...rows],
    series: seriesOf(runs, (name) => !name.startsWith('ours') || name === ours.name),
  };
}

/** The same with every template on the path that renders it anew for each member. */
export async function measureFullPath(bench: Bench): Promise<Found> {
  const runs = await alternate(bench, ['straightforward'], true);
  const ours = bestOf(runs);
  const ratio = ours.rate / rateOf(runs.get(NAMES.straightforward)!);
  return {
    rows: [
      ...[...runs].map(([name, ones]) => rowOf(name, ones)),
      {
        measure: `full path over ${NAMES.straightforward}`,
        figure: `${ratio.toFixed(2)} ×`,
        target: `≥ ${FULL_PATH_TARGET} ×`,
        reached: ratio >= FULL_PATH_TARGET,
      },
    ],
    series: seriesOf(runs, (name) => name === ours.name),
  };
}

type Runs = Map<string, Run[]>;

async function alternate(
  bench: Bench,
  references: readonly ReferenceName[],
  fullPath: boolean,
): Promise<Runs> {
  const { options, stage } = bench;
  const { members, rounds } = options;
  await stage.fillList('everybody', members);
  const counts = [...new Set([1, 2, availableParallelism()])].sort((a, b) => a - b);
  const runs: Runs = new Map();
  const note = (name: string, run: Run) => {
    bench.say(`${name}: ${describe(run)}`);
    runs.set(name, [...(runs.get(name) ?? []), run]);
  };
  for (let round = 0; round < rounds; round++) {
    for (const name of references) {
      const count = name === 'straightforward' ? Math.ceil(members / 10) : members;
      note(NAMES[name], await runReference(bench, name, count));
    }
    for (const processes of counts) {
      const workers = await startWorkers(bench, { processes, fullPath });
      try {
        const run = await runSend(bench, workers, { list: 'everybody', members });
        note(oursWith(processes, fullPath), run);
      } finally {
        await workers.stop();
      }
    }
  }
  return runs;
}

function oursWith(processes: number, fullPath: boolean): string {
  const path = fullPath ? ', full path' : '';
  return `ours${path}, ${processes} process${processes === 1 ? '' : 'es'}`;
}

function bestOf(runs: Runs): { name: string; rate: number; processes: number } {
  const ours = [...runs].filter(([name]) => name.startsWith('ours'));
  const [best] = ours
    .map(([name, ones]) => ({ name, rate: rateOf(ones), processes: Number(/\d+/u.exec(name)) }))
    .sort((a, b) => b.rate - a.rate);
  return best!;
}

function rateOf(runs: readonly Run[]): number {
  return median(runs.map(({ rate }) => rate));
}

function rowOf(name: string, runs: readonly Run[]): Row {
  const cpu = runs.flatMap(({ cpu }) => (cpu ? [cpu] : []));
  const roles = Object.keys(cpu[0] ?? {});
  const each = roles.map((role) => ({ role, used: cpu.map((one) => one[role]!) }));
  const costs = each.map(({ role, used }) => `${role} ${median(used).toFixed(0)}`);
  return {
    measure: name,
    figure:
      `${rateOf(runs).toFixed(0)} mails/s` +
      (costs.length > 0 ? `; CPU µs/mail: ${costs.join(', ')}` : ''),
    runs: {
      'mails/s': runs.map(({ rate }) => rate),
      ...Object.fromEntries(each.map(({ role, used }) => [`CPU µs/mail of ${role}`, used])),
    },
  };
}

function describe({ mails, seconds, rate }: Run): string {
  return `${rate.toFixed(0)} mails/s (${mails} in ${seconds.toFixed(2)} s)`;
}

/** Of the run that is the median. */
function seriesOf(runs: Runs, wanted: (name: string) => boolean) {
  return [...runs]
    .filter(([name]) => wanted(name))
    .map(([name, ones]) => {
      const sorted = ones.toSorted((a, b) => a.rate - b.rate);
      const { ticks } = sorted[Math.floor((sorted.length - 1) / 2)]!;
      return { name, panel: 'side by side' as const, ticks };
    });
}
