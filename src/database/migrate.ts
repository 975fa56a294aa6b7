// Applies migrations/*.sql in the order of their names, and graphile-worker's own schema. Each file
// runs once, all pending ones in one transaction; two processes that migrate at once wait for each
// other on an advisory lock, so the second finds nothing to do.
import { readdir, readFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { runMigrations } from 'graphile-worker';
import { sql } from 'kysely';
import { Migrator, type MigrationProvider } from 'kysely/migration';
import { rootFile } from '../root.ts';
import type { Connection, Database } from './connect.ts';

const LOCK = Number.parseInt(
  createHash('sha256').update('rosterpost migrate').digest('hex').slice(0, 8),
  16,
);

const provider: MigrationProvider = {
  async getMigrations() {
    const folder = rootFile('migrations');
    const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
    const files = names.map(async (name) => {
      const text = await readFile(`${folder}/${name}`, 'utf8');
      return [name.slice(0, -4), { up: (db: Database) => sql.raw(text).execute(db) }] as const;
    });
    return Object.fromEntries(await Promise.all(files)) as never;
  },
};

/** Brings the database up to date; returns the names of the files applied now. Idempotent. */
export async function migrate({ db, pool }: Connection): Promise<string[]> {
  // A session lock around both migrators; kysely's own lock covers only its part.
  const holder = await pool.connect();
  try {
    await holder.query('select pg_advisory_lock($1)', [LOCK]);
    await runMigrations({ pgPool: pool });
    const { error, results } = await new Migrator({ db, provider }).migrateToLatest();
    if (error)
      throw error instanceof Error ? error : new Error('migration failed', { cause: error });
    return (results ?? []).map((result) => result.migrationName);
  } finally {
    // Destroyed, not returned: ends the session and the lock with it, whatever happened.
    holder.release(true);
  }
}

/** Names of the files that are not applied yet; empty when the database is up to date. */
export async function pendingMigrations(db: Database): Promise<string[]> {
  const migrations = await new Migrator({ db, provider }).getMigrations();
  return migrations.filter((one) => !one.executedAt).map((one) => one.name);
}
