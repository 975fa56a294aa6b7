// What the CPU time of a worker is made of: the profile that V8 takes of one while a send drains, by
// package, and by file of our own. Shares of the time it was not idle; being profiled costs, too.
import { mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { rootFile } from '../../../src/root.ts';
import type { Bench } from '../context.ts';
import type { Found } from '../report.ts';
import { runSend } from '../run.ts';
import { startWorkers } from '../workers.ts';

const MOST_SHOWN = 25;

/** As Chrome's DevTools have it. */
interface Profile {
  nodes: { id: number; callFrame: { functionName: string; url: string } }[];
  samples: number[];
  timeDeltas: number[];
}

export async function measureProfile(bench: Bench): Promise<Found> {
  const { stage, options } = bench;
  await stage.fillList('everybody', options.members);
  const folder = path.join(stage.folder, 'profiles');
  await mkdir(folder);
  const workers = await startWorkers(bench, {
    processes: 1,
    env: { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${folder}` },
  });
  try {
    await runSend(bench, workers, { list: 'everybody', members: options.members });
  } finally {
    await workers.stop(); // which writes the profiles
  }
  const shares = new Map<string, number>();
  for (const name of await readdir(folder))
    addTo(shares, JSON.parse(await readFile(path.join(folder, name), 'utf8')) as Profile);
  return { rows: [], notes: [summary(shares)] };
}

function addTo(shares: Map<string, number>, { nodes, samples, timeDeltas }: Profile): void {
  const places = new Map(nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]));
  for (const [index, id] of samples.entries()) {
    const place = places.get(id)!;
    if (place !== '(idle)') shares.set(place, (shares.get(place) ?? 0) + timeDeltas[index]!);
  }
}

function placeOf({ functionName, url }: Profile['nodes'][number]['callFrame']): string {
  if (functionName === '(idle)' || functionName === '(garbage collector)') return functionName;
  if (functionName === '(program)') return '(program: system calls, native code)';
  if (url === '') return '(built into V8)';
  if (url.startsWith('node:')) return url.replace(/^node:internal\/([^/]+).*$/u, 'node:$1');
  const inPackage = /^.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/u.exec(url);
  if (inPackage) return inPackage[1]!;
  return url.startsWith('file:') ? path.relative(rootFile(), fileURLToPath(url)) : url;
}

function summary(shares: Map<string, number>): string {
  const all = [...shares.values()].reduce((sum, one) => sum + one, 0);
  const lines = [...shares]
    .sort(([, a], [, b]) => b - a)
    .slice(0, MOST_SHOWN)
    .map(([place, time]) => `${((100 * time) / all).toFixed(1).padStart(6)} %  ${place}`);
  return ['CPU of a worker by package and file (self time):', ...lines].join('\n');
}
