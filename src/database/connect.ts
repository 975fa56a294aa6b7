// Connections to PostgreSQL: one pool, used by kysely and by graphile-worker alike. A lost idle
// connection is logged and replaced, never thrown: the pool would otherwise end the process.
import { createHash } from 'node:crypto';
import { Kysely, PostgresDialect, sql, type Transaction } from 'kysely';
import pg from 'pg';
import type { Logger } from '../log.ts';
import type { DB } from './schema.ts';

export type Database = Kysely<DB>;
export type Trx = Transaction<DB>;

export interface Connection {
  db: Database;
  pool: pg.Pool;
  url: string;
  /** What its sessions are called in pg_stat_activity. */
  applicationName: string;
  close(): Promise<void>;
}

export interface ConnectOptions {
  url: string;
  log: Logger;
  /** Most connections of this pool; default 10. */
  max?: number;
  applicationName?: string;
  /** A statement without an answer for so long fails, and its connection goes: it may be half-open. */
  queryTimeoutMs?: number;
  /** Idle connections do not keep the process running. */
  allowExitOnIdle?: boolean;
  /**
   * Every statement finds a few rows of large tables by their keys, and is planned so whatever the
   * planner knows of the tables: a list may have been imported a second ago.
   */
  byKey?: boolean;
}

/**
 * Begins a statement that runs for every few mails, whose text never changes: each connection plans it
 * once and keeps the plan (planning a claim takes three times as long as running it).
 */
const MARK = '/* prepared */';
export const prepared = sql.raw(`${MARK} `);

// int8 arrives as text by default. Ours are row numbers and counts, far below 2^53.
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) =>
    oid === pg.types.builtins.INT8 && format !== 'binary'
      ? Number
      : pg.types.getTypeParser(oid, format),
};

/** Of prepared statements: there is none of that name, there is one already. */
const NOT_OURS = new Set(['26000', '42P05']);

const names = new Map<string, string>();

/** The same for the same text, on every connection. */
function nameOf(text: string): string {
  let name = names.get(text);
  if (name === undefined) {
    name = createHash('sha256').update(text).digest('base64url').slice(0, 22);
    names.set(text, name);
  }
  return name;
}

/**
 * Gives a prepared statement its name. A session must be ours alone for that, as for the workers' locks.
 * pg gives up a query after `query_timeout`, but keeps the connection in the pool, where the next one
 * waits behind it; and a plan that a migration has made useless stays useless: either connection goes.
 */
class Client extends pg.Client {
  override query = ((...args: unknown[]) => {
    const [text, values] = args;
    const query = super.query.bind(this) as (...args: unknown[]) => unknown;
    const answer =
      typeof text === 'string' && text.startsWith(MARK)
        ? query({ name: nameOf(text), text }, values)
        : query(...args);
    if (answer instanceof Promise) answer.catch((error: Error) => this.#leave(error));
    return answer;
  }) as pg.Client['query'];

  #leave({ message, code = '' }: Error & { code?: string }): void {
    const isUseless = message === 'cached plan must not change result type' || NOT_OURS.has(code);
    if (message === 'Query read timeout' || isUseless)
      (this as unknown as Wired).connection.stream.destroy();
  }
}

/** Missing in the types. */
interface Wired {
  connection: { stream: { destroy(): void } };
}

/** What is left is a nested loop over indexes: its cost does not depend on the size of the tables. */
const BY_KEY = ' -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off';

/** Opens a pool; connects on first use. `close` waits for the queries that are under way. */
export function connect({
  url,
  log,
  max = 10,
  applicationName = 'rosterpost',
  queryTimeoutMs = 60_000,
  allowExitOnIdle = false,
  byKey = false,
}: ConnectOptions): Connection {
  const pool = new pg.Pool({
    Client,
    connectionString: url,
    max,
    types,
    application_name: applicationName,
    connectionTimeoutMillis: 10_000,
    // A process stopped in the middle of a transaction must not hold its locks for ever.
    idle_in_transaction_session_timeout: 30_000,
    // Our statements are short; compiling a plan costs the snapshot of a large list 100 ms.
    // The server notices a half-open connection, too, and gives its locks back.
    options:
      '-c jit=off -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3' +
      (byKey ? BY_KEY : ''),
    query_timeout: queryTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    allowExitOnIdle,
  });
  pool.on('error', (error) => log.warn({ error: error.message }, 'idle database connection lost'));
  pool.on('connect', (client) =>
    client.on('error', (error) => log.warn({ error: error.message }, 'database connection lost')),
  );
  const db = new Kysely<DB>({ dialect: new PostgresDialect({ pool }) });
  return { db, pool, url, applicationName, close: () => pool.end() };
}
