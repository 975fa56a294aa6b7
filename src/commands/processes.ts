// Command work --processes N: a parent that starts worker processes, starts another where one ends by
// itself, and ends when it is told to, after they have.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { Logger } from '../log.ts';

const RESTART_MS = 1000;

/** Runs `rosterpost <args>` so many times at once. @throws where one failed while ending */
export async function runProcesses(
  count: number,
  args: readonly string[],
  log: Logger,
): Promise<void> {
  const children = new Set<ChildProcess>();
  const stopping = new AbortController();
  // Each signal is handed on: a second one hurries.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      stopping.abort();
      for (const child of children) child.kill('SIGTERM');
    });
  }
  const keepRunning = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const child = startChild(args);
      children.add(child);
      const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
      children.delete(child);
      if (stopping.signal.aborted) {
        // By the signal itself only where it was not ready for it yet, and had nothing in hand.
        if (code !== 0 && signal !== 'SIGTERM')
          throw new Error(`a worker process ended with ${code ?? signal}`);
        return;
      }
      log.error({ pid: child.pid, code, signal }, 'a worker process ended; another is started');
      await pause(RESTART_MS, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: count }, keepRunning));
  const failed = ended.find((one) => one.status === 'rejected');
  if (failed) throw failed.reason;
}

/**
 * In a process group of its own, so that Ctrl-C reaches it through us alone and once. The channel tells
 * it when we are gone (see untilSignal).
 */
function startChild(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    detached: true,
  });
}
