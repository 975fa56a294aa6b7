// Workers and APIs as operators run them: processes of their own, through the command line.
import { type ChildProcess, execFile, spawn, type StdioOptions } from 'node:child_process';
import { on, once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { rootFile } from '../../src/root.ts';

const run = promisify(execFile);

export interface Process {
  child: ChildProcess;
  /** Resident memory right now, in MiB. */
  memory(): Promise<number>;
  /** The exit code; null where a signal ended it. */
  readonly ended: Promise<number | null>;
  /** Sends it, and does not wait: SIGSTOP and SIGCONT end nothing. */
  signal(signal: NodeJS.Signals): void;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
}

export interface ApiProcess extends Process {
  url: string;
}

type Environment = Record<string, string> & { DATABASE_URL: string };

export function startWorkerProcess(
  env: Environment & ({ SMTP_URL: string } | { TRANSPORTS: string }),
  args: string[] = [],
): Process {
  return start(['work', ...args], { LOG_LEVEL: process.env.TEST_LOG ?? 'error', ...env });
}

/** Resolves when it listens, on a port of its own choice. */
export async function startApiProcess(env: Environment): Promise<ApiProcess> {
  const api = start(['serve'], { LOG_LEVEL: 'info', PORT: '0', ...env }, 'pipe');
  const { stderr } = api.child as ChildProcess & { stderr: Readable };
  for await (const [line] of on(createInterface(stderr), 'line', { close: ['close'] })) {
    const { url } = JSON.parse(line as string) as { url?: string };
    if (url) return { ...api, url };
  }
  throw new Error('the API ended before it listened');
}

const STOP_MS = 40_000;

/** In order, or where that takes too long, at once. */
export async function stopInTime(running: Process): Promise<void> {
  const late = setTimeout(() => void running.kill(), STOP_MS);
  await running.stop();
  clearTimeout(late);
}

/** Watches until asked for the highest value seen, in MiB. */
export function watchMemory(watched: Process): { peak(): Promise<number> } {
  let peak = 0;
  const stop = new AbortController();
  const done = (async () => {
    while (!stop.signal.aborted) peak = Math.max(peak, await watched.memory());
  })();
  return {
    peak: async () => {
      stop.abort();
      await done;
      return peak;
    },
  };
}

// What a failed test leaves running must not outlive it.
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

let isBuilt = false;

/** From now on workers and APIs are those of the build in dist/, made here: as in production. */
export async function useBuild(): Promise<void> {
  await run('npm', ['run', 'build'], { cwd: rootFile() });
  isBuilt = true;
}

function start(args: string[], env: Environment, stderr: 'inherit' | 'pipe' = 'inherit'): Process {
  const stdio: StdioOptions = ['ignore', 'inherit', stderr];
  return isBuilt
    ? startProgram(process.execPath, [rootFile('dist/src/cli.js'), ...args], env, stdio)
    : startScript('src/cli.ts', args, env, stdio);
}

/** A script of this repository, in a process of its own. */
export function startScript(
  script: string,
  args: string[],
  env: Record<string, string>,
  stdio: StdioOptions,
): Process {
  const tsx = ['--import', 'tsx', rootFile(script)];
  return startProgram(process.execPath, [...tsx, ...args], env, stdio);
}

export function startProgram(
  program: string,
  args: string[],
  env: Record<string, string>,
  stdio: StdioOptions,
): Process {
  const child = spawn(program, args, {
    cwd: rootFile(),
    env: { ...process.env, NODE_ENV: 'production', ...env },
    stdio,
  });
  running.add(child);
  const ended = once(child, 'exit').then(([code]) => {
    running.delete(child);
    return code as number | null;
  });
  return {
    child,
    memory: async () => {
      const { stdout } = await run('ps', ['-o', 'rss=', '-p', String(child.pid)]);
      return Number(stdout) / 1024;
    },
    ended,
    signal: (signal) => void child.kill(signal),
    stop: () => {
      child.kill('SIGTERM');
      return ended;
    },
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
