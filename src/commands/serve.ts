// Command serve: the API, and the worker beside it where asked. Also what dev and demo start.
import { serve as listen, type ServerType } from '@hono/node-server';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Hono } from 'hono';
import { readConfig, requireDatabaseUrl, requireTransports } from '../config.ts';
import { connect, type Connection } from '../database/connect.ts';
import { pendingMigrations } from '../database/migrate.ts';
import { createApp } from '../http/app.ts';
import { createLogger, type Logger } from '../log.ts';
import { loadTemplates } from '../templates/registry.ts';
import { connectWorker, startWorker, type Worker } from '../worker/worker.ts';
import { warnOfPublicUrl } from './public-url.ts';
import { runUntilSignal, untilSignal } from './signals.ts';

/** For requests that are under way when the API is told to stop. */
const CLOSE_GRACE_MS = 10_000;
/** For a body to arrive; Node's five minutes are too short for a large file that waits for its turn. */
const REQUEST_MS = 3_600_000;
/** Connections of the API's pool. */
const API_CONNECTIONS = 10;

export interface Listening {
  /** http://host:port, with the port that was bound. */
  url: string;
  /** Finishes the requests that are under way. */
  close(): Promise<void>;
}

export async function serve({ withWorker }: { withWorker: boolean }): Promise<void> {
  const config = readConfig();
  const log = createLogger(config.logLevel);
  const { attachments, callback } = config;
  const url = requireDatabaseUrl(config);
  const transports = withWorker ? requireTransports(config) : undefined;
  const templates = await loadTemplates();
  const connection = connect({ url, log, max: API_CONNECTIONS, applicationName: 'rosterpost api' });
  await warnWhereNotMigrated(connection, log);
  const listening = await startListening(
    createApp({ db: connection.db, pool: connection.pool, log, templates, attachments, callback }),
    config,
  );
  log.info({ url: listening.url }, 'api started');
  let worker: Worker | undefined;
  let workerConnection: Connection | undefined;
  if (transports) {
    warnOfPublicUrl(config, log);
    workerConnection = connectWorker(url, log);
    worker = await startWorker({
      connection: workerConnection,
      log,
      templates,
      transports,
      callback,
      retentionDays: config.retentionDays,
      timing: config.timing,
      publicUrl: config.publicUrl,
      unsubscribeMailto: config.unsubscribeMailto,
    });
  }
  await (worker ? runUntilSignal(worker) : untilSignal());
  await listening.close();
  await Promise.all([connection.close(), workerConnection?.close()]);
}

/** The API comes up either way: /readyz says what is missing, and a migration may be under way. */
async function warnWhereNotMigrated({ db }: Connection, log: Logger): Promise<void> {
  try {
    const pending = await pendingMigrations(db);
    if (pending.length > 0)
      log.warn({ pending }, 'the database is not migrated: run rosterpost migrate');
  } catch (error) {
    log.error({ error: (error as Error).message }, 'the database cannot be reached yet');
  }
}

export async function startListening(
  app: Pick<Hono, 'fetch'>,
  { host, port }: { host: string; port: number },
): Promise<Listening> {
  const server = await new Promise<ServerType>((resolve, reject) => {
    const starting = listen({ fetch: app.fetch, hostname: host, port }, () => resolve(starting));
    if ('requestTimeout' in starting) starting.requestTimeout = REQUEST_MS;
    starting.once('error', reject);
    starting.on('clientError', answerClientError);
  });
  const bound = (server.address() as AddressInfo).port;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
    close: () =>
      new Promise((resolve) => {
        const late = setTimeout(() => cutConnections(server), CLOSE_GRACE_MS).unref();
        server.close(() => {
          clearTimeout(late);
          resolve();
        });
        if ('closeIdleConnections' in server) server.closeIdleConnections();
      }),
  };
}

function cutConnections(server: ServerType): void {
  if ('closeAllConnections' in server) server.closeAllConnections();
}

/** What Node refuses before it is a request (RFC 9112) is answered as a problem too. */
function answerClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, title] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'Request Header Fields Too Large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'Request Timeout']
        : [400, 'Bad Request'];
  const body = JSON.stringify({
    type: 'urn:rosterpost:problem:validation_failed',
    title,
    status,
    code: 'validation_failed',
    detail: 'The request is not valid HTTP.',
  });
  socket.end(
    `HTTP/1.1 ${status} ${title}\r\nContent-Type: application/problem+json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
