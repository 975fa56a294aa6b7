// Command dev: everything on one machine, for trying out and developing. Brings what is not given:
// an embedded PostgreSQL without DATABASE_URL, a local mail server with an inbox without SMTP_URL.
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { CallbackPolicy } from '../callback/post.ts';
import { authenticate, createApiKey } from '../clients/api-keys.ts';
import { createClient, findClient, type Client } from '../clients/clients.ts';
import { putSender } from '../clients/senders.ts';
import { readConfig } from '../config.ts';
import { connect, type Database } from '../database/connect.ts';
import { startEmbedded } from '../database/embedded.ts';
import { migrate } from '../database/migrate.ts';
import { createExampleTypes } from '../emails-queue/email-types.ts';
import { DomainError } from '../errors.ts';
import { createApp } from '../http/app.ts';
import { createLogger } from '../log.ts';
import { startSink } from '../smtp/sink.ts';
import { singleTransport } from '../smtp/transport-config.ts';
import { loadTemplates } from '../templates/registry.ts';
import { connectWorker, startWorker } from '../worker/worker.ts';
import { startListening } from './serve.ts';
import { runUntilSignal } from './signals.ts';

const CLIENT_KEY = 'demo';

export async function dev(): Promise<void> {
  const config = readConfig();
  const log = createLogger(config.logLevel === 'info' ? 'warn' : config.logLevel);
  await using started = new AsyncDisposableStack(); // ended in reverse order, whatever happens
  let { databaseUrl: url, transports } = config;
  if (!url) {
    const embedded = await startEmbedded({ folder: config.dataDir });
    started.defer(() => embedded.stop());
    ({ url } = embedded);
  }
  const sink = transports.length > 0 ? undefined : await startSink();
  if (sink) started.defer(() => sink.close());
  if (sink) transports = [singleTransport(sink.url)];
  const connection = connect({ url, log });
  started.defer(() => connection.close());
  await migrate(connection);
  const { db, pool } = connection;
  const client = await prepareDemoClient(db);
  const key = await keepKey(db, client, path.join(config.dataDir, 'dev-api-key'));
  const templates = await loadTemplates();
  const { attachments } = config;
  const callback = withLoopback(config.callback);
  const listening = await startListening(
    createApp({ db, pool, log, templates, attachments, callback, sink }),
    config,
  );
  started.defer(() => listening.close());
  const workerConnection = connectWorker(url, log);
  started.defer(() => workerConnection.close());
  const worker = await startWorker({
    connection: workerConnection,
    log,
    templates,
    transports,
    callback,
    retentionDays: config.retentionDays,
    timing: config.timing,
    publicUrl: config.isPublicUrlSet ? config.publicUrl : listening.url,
    unsubscribeMailto: config.unsubscribeMailto,
  });
  started.defer(() => worker.stop());
  process.stdout.write(
    welcome({ api: listening.url, key, database: url, inbox: sink && `${listening.url}/inbox` }),
  );
  await runUntilSignal(worker);
}

/** What a developer's workers call runs on the developer's machine. */
export function withLoopback(policy: CallbackPolicy): CallbackPolicy {
  return { ...policy, allow: [...policy.allow, '127.0.0.0/8', '::1'] };
}

/** The client `demo` with the default sender `courses` and the documentation's email types. Repeatable. */
export async function prepareDemoClient(db: Database): Promise<Client> {
  return db.transaction().execute(async (trx) => {
    const client = await findClient(trx, CLIENT_KEY).catch((error: unknown) => {
      if (error instanceof DomainError && error.code === 'not_found')
        return createClient(trx, CLIENT_KEY, 'Demo');
      throw error;
    });
    const sender = await trx
      .selectFrom('senders')
      .select('id')
      .where('client_id', '=', client.id)
      .execute();
    if (sender.length === 0) {
      const given = 'courses@courses.example';
      await putSender(trx, client.id, 'courses', {
        email: { email: given, given },
        name: 'Courses',
      });
    }
    await createExampleTypes(trx, client.id);
    return client;
  });
}

/** The key of an earlier run as long as it works, else a new one; readable by the owner only. */
async function keepKey(db: Database, client: Client, file: string): Promise<string> {
  const kept = (await readFile(file, 'utf8').catch(() => '')).trim();
  if ((await authenticate(db, kept))?.id === client.id) return kept;
  const key = await db.transaction().execute((trx) => createApiKey(trx, client, 'dev'));
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, `${key}\n`, { mode: 0o600 });
  await chmod(file, 0o600);
  return key;
}

function welcome(at: {
  api: string;
  key: string;
  database: string;
  inbox: string | undefined;
}): string {
  const auth = `-H "Authorization: Bearer ${at.key}"`;
  return `
  Rosterpost is running. Stop it with Ctrl-C.

    API        ${at.api}
    API key    ${at.key}
    Database   ${at.database}
    Inbox      ${at.inbox ?? '(a mail server is set: mail leaves this machine)'}

  One call a member, one call to mail them all:

    curl -X PUT ${at.api}/api/recipient-lists/my-list/members/1 ${auth} \\
      -H "Content-Type: application/json" -d '{"email": "ada@example.com", "name": "Ada"}'

    curl -X POST ${at.api}/api/recipient-lists/my-list/send ${auth} \\
      -H "Content-Type: application/json" -d '{"send_key": "first", "template_key": "homework-score-published",
      "shared_context": {"course_title": "ML Zoomcamp", "homework_title": "Homework 1"},
      "recipient_context": {"1": {"name": "Ada", "score": 7, "max_score": 8}}}'

`;
}
