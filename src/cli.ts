#!/usr/bin/env node
// The command line: one function of the program per command. Exit codes: 0 done, 1 failed, 2 wrong
// usage. Results go to stdout, logs and errors to stderr.
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { addClientCommands } from './commands/clients.ts';
import { addEmailTypeCommands } from './commands/email-types.ts';
import { jobLines } from './commands/jobs.ts';
import { addKeyCommands } from './commands/keys.ts';
import { addListCommands } from './commands/lists.ts';
import { addSendCommands } from './commands/sends.ts';
import { print, withDatabase } from './commands/with-database.ts';
import { ConfigError, readConfig } from './config.ts';
import { EmbeddedPostgresError } from './database/embedded-binaries.ts';
import { isUnavailable } from './database/failures.ts';
import { migrate } from './database/migrate.ts';
import { DomainError } from './errors.ts';
import { createLogger } from './log.ts';
import { pauseDelivery, resumeDelivery } from './messages/pause.ts';
import { LANE_NAMES, type Lane } from './queue.ts';
import { VERSION } from './root.ts';
import { reconcile } from './sends/wake.ts';
import { Fenced, SharedSession } from './worker/liveness.ts';
import { LaneEnded } from './worker/worker.ts';

const program = new Command('rosterpost')
  .description('Self-hosted email sender: one call mails a whole list.')
  .version(VERSION)
  .showHelpAfterError('(--help shows what can be given)')
  .exitOverride();

program
  .command('dev')
  .description('everything on this machine: database, mail server with inbox, API and worker')
  .action(async () => (await import('./commands/dev.ts')).dev());

program
  .command('demo')
  .description('sends a list of 1,000 members to a local mail server, and ends')
  .action(async () => (await import('./commands/demo.ts')).demo());

program
  .command('serve')
  .description('the API')
  .option('--with-worker', 'and a worker in the same process', false)
  .option('--paused', 'with delivery paused, as by rosterpost pause', false)
  .action(async (options: { withWorker: boolean; paused: boolean }) => {
    if (options.paused) await pauseAtStart();
    await (await import('./commands/serve.ts')).serve(options);
  });

program
  .command('work')
  .description('a worker')
  .option('--lanes <names>', `only these lanes, of ${LANE_NAMES.join(', ')}`, readLanes)
  .option('--processes <number>', 'so many processes at once', readCount)
  .option('--paused', 'with delivery paused, as by rosterpost pause', false)
  .action(async ({ lanes, processes, paused }: WorkOptions) => {
    if (paused) await pauseAtStart();
    if (processes === undefined) return (await import('./commands/work.ts')).work({ lanes });
    const args = ['work', ...(lanes ? ['--lanes', lanes.join(',')] : [])];
    const log = createLogger(readConfig().logLevel);
    return (await import('./commands/processes.ts')).runProcesses(processes, args, log);
  });

program
  .command('pause')
  .description('holds all delivery, on every machine; everything is accepted meanwhile')
  .option('--reason <text>', 'shown by rosterpost jobs')
  .action(({ reason }: { reason?: string }) =>
    withDatabase(async ({ db }) => {
      const { paused_at } = await pauseDelivery(db, reason ?? null);
      print(`Delivery is paused since ${paused_at.toISOString()}. Next: rosterpost resume`);
    }),
  );

program
  .command('resume')
  .description('ends the pause')
  .action(() =>
    withDatabase(async ({ db }) => {
      const pause = await resumeDelivery(db);
      await reconcile(db); // jobs that ran meanwhile found nothing they might take
      print(
        pause
          ? `Delivery goes on. It was paused since ${pause.paused_at.toISOString()}.`
          : 'Delivery was not paused.',
      );
    }),
  );

program
  .command('jobs')
  .description('what waits, what runs and what is stuck, by task, lane, state and age')
  .action(() =>
    withDatabase(async ({ db }) => {
      for (const line of await jobLines(db)) print(line);
    }),
  );

program
  .command('migrate')
  .description('brings the database up to date; safe to run twice at once')
  .action(() =>
    withDatabase(async (connection) => {
      const applied = await migrate(connection);
      print(
        applied.length === 0 ? 'The database is up to date.' : `Applied ${applied.join(', ')}.`,
      );
    }),
  );

addClientCommands(program);
addKeyCommands(program);
addEmailTypeCommands(program);
addListCommands(program);
addSendCommands(program);

interface WorkOptions {
  lanes?: Lane[];
  processes?: number;
  paused: boolean;
}

const MOST_PROCESSES = 256;

function readCount(text: string): number {
  const count = /^\d{1,3}$/u.test(text) ? Number(text) : 0;
  if (count >= 1 && count <= MOST_PROCESSES) return count;
  throw new InvalidArgumentError(`must be a whole number from 1 to ${MOST_PROCESSES}.`);
}

/** A database restored from a backup must not mail again what was sent since. */
function pauseAtStart(): Promise<void> {
  return withDatabase(async ({ db }) => void (await pauseDelivery(db, 'started with --paused')));
}

function readLanes(text: string): Lane[] {
  const lanes = text.split(',').map((name) => name.trim());
  const unknown = lanes.find((name) => !LANE_NAMES.includes(name as Lane));
  if (unknown !== undefined) {
    throw new InvalidArgumentError(
      `"${unknown}" is no lane; the lanes are ${LANE_NAMES.join(', ')}.`,
    );
  }
  return lanes as Lane[];
}

interface ListenError {
  address?: string;
  port?: number;
}

function explain(error: unknown): string {
  const expected =
    error instanceof DomainError ||
    error instanceof ConfigError ||
    error instanceof EmbeddedPostgresError ||
    error instanceof Fenced ||
    error instanceof SharedSession ||
    error instanceof LaneEnded;
  if (expected) return error.message;
  const { code, syscall, address, port } = error as NodeJS.ErrnoException & ListenError;
  if (syscall === 'listen') {
    const why = code === 'EADDRINUSE' ? 'it is in use' : code;
    return `Cannot listen on ${address}:${port}: ${why}. Set another PORT or HOST.`;
  }
  if (code === 'ENOENT' || code === 'EACCES' || code === 'EISDIR')
    return `The file cannot be read: ${(error as Error).message}`;
  if (isUnavailable(error))
    return `The database cannot be reached: ${String((error as Error).message || (error as { code?: string }).code)}`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

try {
  await program.parseAsync();
  process.exit(0);
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  process.stderr.write(`${explain(error)}\n`);
  process.exit(1);
}
