#!/usr/bin/env node
// The command line: one function of the program per command. Exit codes: 0 done, 1 failed, 2 wrong
// usage. Results go to stdout, logs and errors to stderr.
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { ConfigError, readConfig, requireDatabaseUrl } from './config.ts';
import { createApiKey, listApiKeys, revokeApiKey } from './clients/api-keys.ts';
import { createClient, findClient } from './clients/clients.ts';
import { connect, type Connection, type Database } from './database/connect.ts';
import { EmbeddedPostgresError } from './database/embedded-binaries.ts';
import { isUnavailable } from './database/failures.ts';
import { migrate } from './database/migrate.ts';
import { DomainError } from './errors.ts';
import { createLogger } from './log.ts';
import { LANE_NAMES, type Lane, type SendRef } from './queue.ts';
import { VERSION } from './root.ts';
import { cancelSend, pauseSend, resumeSend, retryFailed } from './sends/control.ts';
import { findSendById, getSend } from './sends/sends.ts';
import { clientLines, setClient, type ClientOptions } from './commands/clients.ts';
import {
  emailTypeLines,
  removeEmailType,
  setEmailType,
  type EmailTypeOptions,
} from './commands/email-types.ts';
import { Fenced, SharedSession } from './worker/liveness.ts';
import { LaneEnded } from './worker/worker.ts';
import { createExampleTypes } from './emails-queue/email-types.ts';
import { jobLines } from './commands/jobs.ts';
import { exportFile, importFile, type ListOptions } from './commands/lists.ts';
import { countsLine, watchSend } from './commands/progress.ts';
import { pauseDelivery, resumeDelivery } from './messages/pause.ts';
import { IMPORT_FORMATS, type ImportFormat } from './recipients/import-rows.ts';
import { reconcile } from './sends/wake.ts';

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

const client = program.command('client').description('clients (tenants)');
client
  .command('create <key>')
  .description('makes a client')
  .option('--name <name>', 'name for people')
  .option('--no-example-types', 'without the email types welcome, notification and report')
  .action((key: string, { name, exampleTypes }: { name?: string; exampleTypes: boolean }) =>
    withDatabase(async ({ db }) => {
      await db.transaction().execute(async (trx) => {
        const made = await createClient(trx, key, name);
        if (exampleTypes) await createExampleTypes(trx, made.id);
      });
      print(`Client "${key}" created. Next: rosterpost key create ${key}, then PUT a sender.`);
    }),
  );

client
  .command('set <key>')
  .description('changes what is given')
  .option('--name <name>', 'name for people')
  .option('--callback-url <url>', 'where personal contexts are fetched; "" for nowhere')
  .addOption(
    new Option('--callback-secret <secret>', 'signs those requests: whsec_…').conflicts(
      'newCallbackSecret',
    ),
  )
  .option('--new-callback-secret', 'makes a random one and prints it')
  .action((key: string, options: ClientOptions) =>
    withDatabase(async ({ db }) => {
      for (const line of await setClient(db, key, options, readConfig().callback)) print(line);
    }),
  );
client
  .command('show <key>')
  .description('its name and its context callback')
  .option('--secret', 'and the secret of the callback')
  .action((key: string, options: { secret?: boolean }) =>
    withDatabase(async ({ db }) => {
      for (const line of await clientLines(db, key, options)) print(line);
    }),
  );

const key = program.command('key').description('API keys');
key
  .command('create <client>')
  .description('makes a key and prints it, once')
  .option('--name <name>', 'what the key is for')
  .action((clientKey: string, { name }: { name?: string }) =>
    withDatabase(async ({ db }) => {
      const owner = await findClient(db, clientKey);
      print(await db.transaction().execute((trx) => createApiKey(trx, owner, name)));
    }),
  );
key
  .command('list')
  .description('all keys, by their prefix')
  .action(() =>
    withDatabase(async ({ db }) => {
      for (const one of await listApiKeys(db)) {
        const used = one.last_used_at ? `used ${one.last_used_at.toISOString()}` : 'never used';
        const state = one.revoked_at ? `revoked ${one.revoked_at.toISOString()}` : 'live';
        print([one.prefix, one.client_key, one.name || '-', state, used].join('\t'));
      }
    }),
  );
key
  .command('revoke <prefix>')
  .description('refuses a key from now on')
  .action((prefix: string) =>
    withDatabase(async ({ db }) => {
      await db.transaction().execute((trx) => revokeApiKey(trx, prefix));
      print('Revoked.');
    }),
  );

const emailType = program.command('email-type').description('types of single emails');
emailType
  .command('list <client>')
  .description('the types of a client')
  .action((clientKey: string) =>
    withDatabase(async ({ db }) => {
      for (const line of await emailTypeLines(db, clientKey)) print(line);
    }),
  );
emailType
  .command('set <client> <type>')
  .description('registers a type or changes what is given')
  .option('--description <text>', 'for people')
  .option('--to <addresses>', 'default To, separated by commas; "" for none', readAddresses)
  .option('--cc <addresses>', 'default Cc', readAddresses)
  .option('--bcc <addresses>', 'default Bcc', readAddresses)
  .option('--from <sender>', 'id of the sender')
  .option('--active', 'takes new emails')
  .option('--no-active', 'refuses new emails')
  .action((clientKey: string, name: string, options: EmailTypeOptions) =>
    withDatabase(async ({ db }) => {
      const done = await setEmailType(db, clientKey, name, options);
      print(`Email type "${name}" ${done}.`);
    }),
  );
emailType
  .command('delete <client> <type>')
  .description('refuses new emails of the type; those that are queued stay')
  .action((clientKey: string, name: string) =>
    withDatabase(async ({ db }) => {
      await removeEmailType(db, clientKey, name);
      print('Deleted.');
    }),
  );

const list = program.command('list').description('recipient lists');
list
  .command('import <file>')
  .description('upserts the members of a CSV or NDJSON file into a list, all of them or none')
  .requiredOption('--client <key>', 'the client the list belongs to')
  .requiredOption('--list <key>', 'the list; made where it is missing')
  .addOption(
    new Option('--format <format>', 'default: by the extension .csv, .ndjson or .jsonl').choices(
      IMPORT_FORMATS,
    ),
  )
  .action((file: string, options: ListOptions & { format?: ImportFormat }) =>
    withDatabase(async (connection) => {
      for (const line of await importFile(connection, file, options)) print(line);
    }),
  );
list
  .command('export')
  .description('the active members of a list as CSV, to stdout')
  .requiredOption('--client <key>', 'the client the list belongs to')
  .requiredOption('--list <key>', 'the list')
  .action((options: ListOptions) => withDatabase(({ db }) => exportFile(db, options)));

const send = program.command('send').description('sends');
send
  .command('watch <id>')
  .description('live progress of a send')
  .action((id: string) =>
    withDatabase(async ({ db }) => {
      const { client_id, send_id } = await findSendById(db, id);
      const done = await watchSend(() => getSend(db, client_id, send_id));
      print(`${done.state}: ${countsLine(done.counts)}`);
    }),
  );
for (const [action, description, control] of [
  ['pause', 'holds a send; what is in hand is finished', pauseSend],
  ['resume', 'lets a paused send go on', resumeSend],
  ['cancel', 'skips what has not been sent', cancelSend],
] as const) {
  send
    .command(`${action} <id>`)
    .description(description)
    .action((id: string) =>
      withDatabase(async ({ db }) => {
        const ref = await findSendById(db, id);
        await db.transaction().execute((trx) => control(trx, ref));
        await printSend(db, ref);
      }),
    );
}
send
  .command('retry-failed <id>')
  .description('queues again what failed, but for addresses that do not exist')
  .action((id: string) =>
    withDatabase(async ({ db }) => {
      const ref = await findSendById(db, id);
      const retried = await db.transaction().execute((trx) => retryFailed(trx, ref));
      print(`Queued again: ${retried}.`);
      await printSend(db, ref);
    }),
  );

async function printSend(db: Database, { client_id, send_id }: SendRef): Promise<void> {
  const { state, counts } = await getSend(db, client_id, send_id);
  print(`${state}: ${countsLine(counts)}`);
}

function readAddresses(text: string): string[] {
  return text === '' ? [] : text.split(',').map((address) => address.trim());
}

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

async function withDatabase(action: (connection: Connection) => Promise<void>): Promise<void> {
  const config = readConfig();
  const log = createLogger(config.logLevel);
  const connection = connect({
    url: requireDatabaseUrl(config),
    log,
    max: 3,
    applicationName: 'rosterpost cli',
    queryTimeoutMs: 3_600_000, // migrations may take their time
  });
  try {
    await action(connection);
  } finally {
    await connection.close();
  }
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
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
