// Our workers as operators run them, for one run: started, warmed up with a small send, and ended.
import { availableParallelism } from 'node:os';
import { startScript, startWorkerProcess, stopInTime } from '../support/processes.ts';
import { until } from '../support/until.ts';
import type { Bench } from './context.ts';
import { runSend } from './run.ts';

/** For list mail, of all processes together. */
export const CONNECTIONS = 100;

export interface Workers {
  /** All of them run below it. */
  pid: number;
  stop(): Promise<void>;
}

export interface WorkersOptions {
  processes: number;
  /** Every template rendered anew for each member. */
  fullPath?: boolean;
  /** Mail servers as TRANSPORTS names them; default the sink alone. */
  transports?: Record<string, unknown>[];
  env?: Record<string, string>;
}

export async function startWorkers(
  bench: Bench,
  { processes, fullPath = false, transports, env = {} }: WorkersOptions,
): Promise<Workers> {
  const { stage, sink, options } = bench;
  const environment = {
    DATABASE_URL: stage.databaseUrl,
    TRANSPORTS: JSON.stringify(
      transports ?? [
        { name: 'sink', url: sink.url, connections: Math.ceil(CONNECTIONS / processes) },
      ],
    ),
    ...env,
  };
  const args = ['work', '--processes', String(processes)];
  const started = fullPath
    ? startScript(
        'test/bench/full-path.ts',
        args,
        { LOG_LEVEL: 'error', ...environment },
        'inherit',
      )
    : startWorkerProcess(environment, args.slice(1));
  bench.started(started);
  try {
    await until(`${processes} workers`, async () => {
      const { rows } = await stage.pool.query(
        'select count(*)::integer as alive from workers where stopped_at is null',
      );
      return rows[0].alive === processes;
    });
    const workers = { pid: started.child.pid!, stop: () => stopInTime(started) };
    await stage.fillList('warm-up', options.warmUp);
    await runSend(bench, workers, { list: 'warm-up', members: options.warmUp });
    return workers;
  } catch (error) {
    await stopInTime(started);
    throw error;
  }
}

/** The process count that was best end to end, or one per core. */
export function fastest({ best }: Bench): number {
  return best?.processes ?? availableParallelism();
}
