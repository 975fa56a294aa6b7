// A worker as operators run it: a process of its own, through the command line.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { rootFile } from '../../src/root.ts';

const run = promisify(execFile);

export interface WorkerProcess {
  child: ChildProcess;
  /** Resident memory right now, in MiB. */
  memory(): Promise<number>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

export function startWorkerProcess(
  env: { DATABASE_URL: string; SMTP_URL: string },
  args: string[] = [],
): WorkerProcess {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', rootFile('src/cli.ts'), 'work', ...args],
    {
      cwd: rootFile(),
      env: {
        ...process.env,
        NODE_ENV: 'production',
        LOG_LEVEL: process.env.TEST_LOG ?? 'error',
        ...env,
      },
      stdio: ['ignore', 'inherit', 'inherit'],
    },
  );
  const ended = once(child, 'exit') as Promise<[number | null]>;
  return {
    child,
    memory: async () => {
      const { stdout } = await run('ps', ['-o', 'rss=', '-p', String(child.pid)]);
      return Number(stdout) / 1024;
    },
    stop: async () => {
      child.kill('SIGTERM');
      const [code] = await ended;
      return code;
    },
  };
}
