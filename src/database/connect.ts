// Connections to PostgreSQL: one pool, used by kysely and by graphile-worker alike. A lost idle
// connection is logged and replaced, never thrown: the pool would otherwise end the process.
import { Kysely, PostgresDialect, type Transaction } from 'kysely';
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
}

// int8 arrives as text by default. Ours are row numbers and counts, far below 2^53.
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) =>
    oid === pg.types.builtins.INT8 && format !== 'binary'
      ? Number
      : pg.types.getTypeParser(oid, format),
};

/**
 * pg gives up a query after `query_timeout`, but keeps the connection in the pool, where the next one
 * waits behind it.
 */
class ImpatientClient extends pg.Client {
  override query = ((...args: Parameters<pg.Client['query']>) => {
    const answer: unknown = super.query(...args);
    if (answer instanceof Promise) answer.catch((error: Error) => this.#leave(error));
    return answer;
  }) as pg.Client['query'];

  #leave({ message }: Error): void {
    if (message === 'Query read timeout') (this as unknown as Wired).connection.stream.destroy();
  }
}

/** Missing in the types. */
interface Wired {
  connection: { stream: { destroy(): void } };
}

/** Opens a pool; connects on first use. `close` waits for the queries that are under way. */
export function connect({
  url,
  log,
  max = 10,
  applicationName = 'rosterpost',
  queryTimeoutMs = 60_000,
  allowExitOnIdle = false,
}: ConnectOptions): Connection {
  const pool = new pg.Pool({
    Client: ImpatientClient,
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
      '-c jit=off -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3',
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
