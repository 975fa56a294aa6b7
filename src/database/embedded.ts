// A PostgreSQL server of our own for `dev`, `demo` and the tests: initialised once in its folder,
// started on a free port of 127.0.0.1, stopped with this process, however this process ends.
// A server in the same folder that this program did not start is never touched; one that a killed
// run of this program left behind is stopped and started anew.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chown, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import {
  EmbeddedPostgresError,
  findAccount,
  findBinaries,
  requireReachable,
  type Account,
  type Binaries,
} from './embedded-binaries.ts';

const run = promisify(execFile);
const USER = 'rosterpost';
export interface EmbeddedPostgres {
  /** Of the database `rosterpost`. */
  url: string;
  stop(): Promise<void>;
}

export interface EmbeddedOptions {
  /** Folder for the cluster (`postgres`), its password and its log; created when missing. */
  folder: string;
  /** Server settings beyond the defaults, such as `{ fsync: 'off' }`. */
  settings?: Record<string, string>;
  /** How long a server of a killed run may take to end by itself; default 15 s. */
  patienceMs?: number;
}

/** @throws EmbeddedPostgresError with what stands in the way and what to do about it. */
export async function startEmbedded({
  folder,
  settings = {},
  patienceMs = 15_000,
}: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const binaries = await findBinaries();
  const account = await findAccount();
  await makeFolder(folder);
  await requireReachable(binaries.postgres, account);
  const cluster = path.join(folder, 'postgres');
  await requireReachable(cluster, account);
  const password = await initialise(cluster, binaries, account);
  await endPredecessor({ cluster, password, binaries, account, patienceMs });
  const port = await freePort();
  const server = await startServer({ cluster, port, binaries, account, settings });
  await waitUntilReady(server, port, password, path.join(folder, 'postgres.log'));
  return { url: urlOf(port, password, USER), stop: () => stopServer(server) };
}

function urlOf(port: number, password: string, database: string): string {
  return `postgres://${USER}:${password}@127.0.0.1:${port}/${database}`;
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    const { code, path: where } = error as NodeJS.ErrnoException;
    throw new EmbeddedPostgresError(
      `The folder ${folder} cannot be made: ${code} at ${where ?? folder}. Set DATA_DIR to a folder you may write to.`,
    );
  }
}

/** Makes the cluster unless it exists; returns its password. Under another name until complete. */
async function initialise(
  cluster: string,
  { initdb }: Binaries,
  account?: Account,
): Promise<string> {
  const passwordFile = `${cluster}.password`;
  if (await exists(path.join(cluster, 'PG_VERSION')))
    return (await readFile(passwordFile, 'utf8')).trim();
  const password = randomBytes(24).toString('base64url');
  const unfinished = `${cluster}.new`;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished, { mode: 0o700 });
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  if (account) {
    await chown(unfinished, account.uid, account.gid);
    await chown(passwordFile, account.uid, account.gid);
  }
  const flags = [
    '--encoding=UTF8',
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
  ];
  try {
    await run(
      initdb,
      ['-D', unfinished, '-U', USER, '--auth=scram-sha-256', `--pwfile=${passwordFile}`, ...flags],
      { ...asAccount(account), cwd: unfinished },
    );
  } catch (error) {
    throw new EmbeddedPostgresError(
      `initdb failed: ${(error as { stderr?: string }).stderr ?? String(error)}`,
    );
  }
  await rename(unfinished, cluster);
  return password;
}

function asAccount(account: Account | undefined): { uid?: number; gid?: number } {
  return account ? { uid: account.uid, gid: account.gid } : {};
}

/** Leaves no server in `cluster`, or throws where one runs that is not a leftover of ours. */
async function endPredecessor(options: {
  cluster: string;
  password: string;
  binaries: Binaries;
  account: Account | undefined;
  patienceMs: number;
}): Promise<void> {
  const { cluster, password, binaries, account, patienceMs } = options;
  const pidFile = path.join(cluster, 'postmaster.pid');
  for (const since = Date.now(); ; await delay(100)) {
    const lines = await readFile(pidFile, 'utf8').then(
      (text) => text.split('\n'),
      () => undefined,
    );
    const pid = Number(lines?.[0]);
    // PostgreSQL removes the file of a dead process itself.
    if (!lines || !pid || !isAlive(pid)) return;
    const owner = await ownerOf(Number(lines[3]), password);
    if (owner !== undefined && isAlive(owner)) {
      throw new EmbeddedPostgresError(
        `The database in ${cluster} is in use by another rosterpost (process ${owner}). Stop it, or set DATA_DIR to another folder.`,
      );
    }
    if (owner !== undefined) {
      await run(binaries.pg_ctl, ['stop', '-w', '-m', 'fast', '-D', cluster], {
        ...asAccount(account),
        cwd: cluster,
      });
      return;
    }
    if (Date.now() - since < patienceMs) continue;
    if (await isPostgres(pid)) {
      throw new EmbeddedPostgresError(
        `A PostgreSQL server (process ${pid}) that this program did not start runs in ${cluster}. Stop it, or set DATA_DIR to another folder.`,
      );
    }
    await rm(pidFile); // left by a crash; its process id now belongs to another program
    return;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** The process that started the server on `port`; undefined where it is no server of ours. */
async function ownerOf(port: number, password: string): Promise<number | undefined> {
  const client = new pg.Client({
    connectionString: urlOf(port, password, 'postgres'),
    connectionTimeoutMillis: 2000,
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<{ owner: string | null }>(
      `select current_setting('rosterpost.owner', true) as owner`,
    );
    return Number(rows[0]?.owner) || undefined;
  } catch {
    return undefined;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function isPostgres(pid: number): Promise<boolean> {
  const { stdout } = await run('ps', ['-o', 'args=', '-p', String(pid)]).catch(() => ({
    stdout: '',
  }));
  return stdout.includes('postgres');
}

/** Of 127.0.0.1: nobody listens there now. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

interface Server {
  child: ChildProcess;
  watchdog: ChildProcess | undefined;
  exited: Promise<unknown>;
}

async function startServer(options: {
  cluster: string;
  port: number;
  binaries: Binaries;
  account: Account | undefined;
  settings: Record<string, string>;
}): Promise<Server> {
  const { cluster, port, binaries, account } = options;
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    'rosterpost.owner': String(process.pid),
    ...options.settings,
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const log = await open(`${cluster}.log`, 'w', 0o600);
  // Detached: Ctrl-C goes to the whole foreground group, and the server must outlive our workers.
  const child = spawn(binaries.postgres, ['-D', cluster, '-p', String(port), ...flags], {
    ...asAccount(account),
    cwd: cluster,
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  const exited = once(child, 'exit').catch(() => undefined);
  await log.close();
  child.unref();
  return {
    child,
    exited,
    watchdog: child.pid === undefined ? undefined : startWatchdog(child.pid),
  };
}

/** Stops the server when this process ends without stopping it, as by kill -9: its pipe closes. */
function startWatchdog(pid: number): ChildProcess | undefined {
  if (process.platform === 'win32') return undefined;
  const watchdog = spawn('sh', ['-c', 'read -r line; kill -INT "$1"', 'watchdog', String(pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  watchdog.on('error', () => undefined);
  watchdog.stdin.on('error', () => undefined);
  (watchdog.stdin as unknown as { unref(): void }).unref();
  watchdog.unref();
  return watchdog;
}

async function waitUntilReady(
  server: Server,
  port: number,
  password: string,
  logFile: string,
): Promise<void> {
  let ended = false;
  void server.exited.then(() => (ended = true));
  for (;;) {
    const client = new pg.Client({ connectionString: urlOf(port, password, 'postgres') });
    client.on('error', () => undefined);
    try {
      await client.connect();
      const { rowCount } = await client.query(`select from pg_database where datname = $1`, [USER]);
      if (rowCount === 0) await client.query(`create database ${USER}`);
      return;
    } catch (error) {
      if (ended) {
        const log = await readFile(logFile, 'utf8').catch(() => '');
        throw new EmbeddedPostgresError(
          `The embedded PostgreSQL did not start: ${log.trim().split('\n').slice(-8).join('\n')}`,
        );
      }
      // 57P03: starting up or recovering; ECONNREFUSED: not listening yet.
      if (
        !['57P03', 'ECONNREFUSED', 'ECONNRESET'].includes((error as { code?: string }).code ?? '')
      )
        throw error;
    } finally {
      await client.end().catch(() => undefined);
    }
    await delay(25);
  }
}

/** Fast shutdown: open transactions are rolled back, everything committed is on disk. */
async function stopServer({ child, watchdog, exited }: Server): Promise<void> {
  watchdog?.kill('SIGKILL');
  child.ref();
  if (child.exitCode === null && child.signalCode === null) child.kill('SIGINT');
  await exited;
}

function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
