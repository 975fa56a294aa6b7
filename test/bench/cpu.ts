// What processes cost, from /proc: CPU time of a process and of all that it started, those that have
// ended included, and the highest memory of each. Linux only; elsewhere there are no such figures.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export const HAS_CPU = process.platform === 'linux';

/** CPU microseconds by role. */
export type Cpu = Record<string, number>;

interface Stat {
  pid: number;
  parent: number;
  ticks: number;
}

const ticksPerSecond = HAS_CPU
  ? Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))
  : 100;

/** Starts to watch; the function it gives says what was used since. Undefined off Linux. */
export function watchCpu(roots: Record<string, number>): () => Cpu | undefined {
  if (!HAS_CPU) return () => undefined;
  const before = readCpu(roots);
  return () => {
    const now = readCpu(roots);
    return Object.fromEntries(
      Object.entries(now).map(([role, used]) => [role, used - before[role]!]),
    );
  };
}

function readCpu(roots: Record<string, number>): Cpu {
  const stats = readStats();
  return Object.fromEntries(
    Object.entries(roots).map(([role, root]) => {
      const ticks = treeOf(stats, root).reduce((sum, one) => sum + one.ticks, 0);
      return [role, (ticks * 1e6) / ticksPerSecond];
    }),
  );
}

/** The highest resident memory that one process of the tree ever had, in MiB. Undefined off Linux. */
export function peakMemory(root: number): number | undefined {
  if (!HAS_CPU) return undefined;
  const peaks = treeOf(readStats(), root).map(({ pid }) => {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/^VmHWM:\s+(\d+) kB$/mu.exec(status)?.[1] ?? 0) / 1024;
  });
  return Math.max(...peaks);
}

function treeOf(stats: Stat[], root: number): Stat[] {
  const tree = stats.filter(({ pid }) => pid === root);
  for (const one of tree) tree.push(...stats.filter(({ parent }) => parent === one.pid));
  return tree;
}

function readStats(): Stat[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/u.test(name))
    .flatMap((name) => {
      try {
        const text = readFileSync(`/proc/${name}/stat`, 'utf8');
        // proc_pid_stat(5): the name may hold anything, the fields follow its closing parenthesis.
        const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
        const [utime, stime, cutime, cstime] = fields.slice(11, 15).map(Number);
        const ticks = utime! + stime! + cutime! + cstime!;
        return [{ pid: Number(name), parent: Number(fields[1]), ticks }];
      } catch {
        return []; // it has ended
      }
    });
}
