// `npm run bench`: everything the README says about speed, measured side by side in one run: a table, a
// JSON file and a plot in bench-results/. `-- --large` for a million members, `--only NAME[,NAME]` for
// single measures, `--members N` for a smaller one, `--profile` for what the cost is made of. Ends what it started, also when it is interrupted.
import '../../src/config.ts'; // before React is: it makes it the production build
import os from 'node:os';
import { parseArgs } from 'node:util';
import { stopInTime, useBuild, type Process } from '../support/processes.ts';
import type { Bench, Options } from './context.ts';
import { HAS_CPU } from './cpu.ts';
import { writeReadyMade } from './mailing.ts';
import { measureCost } from './measures/cost.ts';
import { measureEndToEnd, measureFullPath } from './measures/end-to-end.ts';
import { measureProfile } from './measures/profile.ts';
import { measureReading } from './measures/reading.ts';
import { measureSize } from './measures/size.ts';
import { measureTriggers } from './measures/trigger.ts';
import { measureUrgent } from './measures/urgent.ts';
import { singleRuns, table, writeResults, type Found } from './report.ts';
import { startSink } from './sink.ts';
import { openStage } from './stage.ts';

/** In this order: the trigger leaves sends behind that nobody delivers. */
const MEASURES: Record<string, (bench: Bench) => Promise<Found>> = {
  'end-to-end': measureEndToEnd,
  'full-path': measureFullPath,
  size: measureSize,
  urgent: measureUrgent,
  reading: measureReading,
  cost: measureCost,
  profile: measureProfile,
  trigger: measureTriggers,
};

const { values: given } = parseArgs({
  options: {
    large: { type: 'boolean', default: false },
    only: { type: 'string' },
    members: { type: 'string', default: '20000' },
    rounds: { type: 'string', default: '3' },
    profile: { type: 'boolean', default: false },
  },
});
const names = given.only?.split(',') ?? Object.keys(MEASURES).filter((name) => name !== 'profile');
if (given.profile) names.push('cost', 'profile');
const unknown = names.find((name) => !(name in MEASURES));
if (unknown !== undefined) {
  console.error(`"${unknown}" is no measure; there are ${Object.keys(MEASURES).join(', ')}`);
  process.exit(2);
}
const [members, rounds] = [given.members, given.rounds].map(Number) as [number, number];
if (!(Number.isInteger(members) && members >= 100 && Number.isInteger(rounds) && rounds >= 1)) {
  console.error('--members takes a whole number from 100 on, --rounds one from 1 on');
  process.exit(2);
}
const options: Options = {
  members,
  large: members * (given.large ? 50 : 5),
  warmUp: Math.min(5000, members),
  rounds,
};

const closing: (() => Promise<void>)[] = [];
let closed: Promise<void> | undefined;
const close = () =>
  (closed ??= (async () => {
    for (let last = closing.pop(); last; last = closing.pop())
      await last().catch((error: Error) => console.error(error.message));
  })());
let interrupted: number | undefined;
const endWith = async (code: number) => {
  interrupted ??= code;
  await close();
  process.exit(code);
};
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void endWith(130));
process.once('uncaughtException', (error) => {
  console.error(error);
  void endWith(1);
});

const begun = performance.now();
const say = (line: string) =>
  console.log(`[${((performance.now() - begun) / 1000).toFixed(0).padStart(5)} s] ${line}`);
const failures: string[] = [];
const found: Found[] = [];
try {
  await useBuild();
  const stage = await openStage();
  closing.push(() => stage.close());
  const sink = await startSink();
  closing.push(() => stopInTime(sink.process));
  const readyMade = await writeReadyMade(stage.folder);
  const started = (one: Process) => void closing.push(() => stopInTime(one));
  const bench: Bench = { stage, sink, readyMade, options, say, started };
  say(`mail server: ${sink.what}; a message has ${readyMade.bytes} bytes`);
  if (!HAS_CPU) say('CPU and peak memory are left out: they are read from /proc, of Linux');
  for (const name of Object.keys(MEASURES).filter((one) => names.includes(one))) {
    say(`measuring ${name}`);
    try {
      found.push(await MEASURES[name]!(bench));
    } catch (error) {
      if (closed) break;
      failures.push(name);
      say(`${name} failed: ${(error as Error).stack}`);
    }
  }
  if (!closed) await report(bench);
} finally {
  await close();
}
process.exit(interrupted ?? (failures.length > 0 ? 1 : 0));

async function report({ sink, readyMade }: Bench): Promise<void> {
  const rows = found.flatMap((one) => one.rows);
  console.log(`\n${table(rows)}\n\nsingle runs:\n${singleRuns(rows)}`);
  for (const note of found.flatMap((one) => one.notes ?? [])) console.log(`\n${note}`);
  const about = {
    at: new Date().toISOString(),
    machine: {
      cpus: os.cpus().map(({ model }) => model),
      platform: `${process.platform} ${os.release()}`,
      node: process.version,
      loadAverage: os.loadavg(),
    },
    sink: sink.what,
    messageBytes: readyMade.bytes,
    options,
    failures,
  };
  const files = await writeResults(about, found);
  console.log(
    `\nload of the machine now: ${os.loadavg()[0]!.toFixed(1)} on ${os.cpus().length} CPUs`,
  );
  for (const name of failures) console.log(`FAILED: ${name}`);
  console.log(`written: ${files.join(', ')}`);
}
