// Command demo: the product in one minute, on nothing but this package. A throw-away PostgreSQL and
// mail server, the API and a worker; then what a caller does, over HTTP: a list of 1,000 members,
// some of them suppressed or unsubscribed, and one call that mails them all their own score.
import { mkdtemp, rm, chmod } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createApiKey } from '../clients/api-keys.ts';
import { readConfig } from '../config.ts';
import { connect } from '../database/connect.ts';
import { startEmbedded } from '../database/embedded.ts';
import { migrate } from '../database/migrate.ts';
import { createApp } from '../http/app.ts';
import { createLogger } from '../log.ts';
import type { Send } from '../sends/sends.ts';
import { parseMail, startSink, type Sink } from '../smtp/sink.ts';
import { singleTransport } from '../smtp/transport-config.ts';
import { loadTemplates } from '../templates/registry.ts';
import { connectWorker, startWorker } from '../worker/worker.ts';
import { prepareDemoClient, withLoopback } from './dev.ts';
import { countsLine, watchSend } from './progress.ts';
import { startListening } from './serve.ts';

const MEMBERS = 1000;
const LIST = 'ml-zoomcamp-2026:@e:@homework:homework-1';
const NAMES = [
  'Ada Lovelace',
  'José Muñoz',
  'Владимир Кузнецов',
  '王小明',
  'محمد الفارسي',
  'Zoë Krüger',
  'दीपिका शर्मा',
  '김서연',
  'Ngọc Trần',
  'שרה כהן',
  "Siobhán O'Connor",
  '佐藤 美咲',
  'Ελένη Παπαδοπούλου',
];
const SUPPRESSED = [
  'hard_bounce',
  'hard_bounce',
  'hard_bounce',
  'complaint',
  'complaint',
  'manual',
] as const;
const UNSUBSCRIBED = 6;
const PENDING = 4;

export async function demo(): Promise<void> {
  const config = readConfig();
  const log = createLogger(config.logLevel === 'info' ? 'error' : config.logLevel);
  const folder = await mkdtemp(path.join(tmpdir(), 'rosterpost-demo-'));
  await chmod(folder, 0o755); // the database may run as another account; its own folder is closed
  say('Starting an embedded PostgreSQL, a local mail server, the API and a worker …');
  const embedded = await startEmbedded({ folder });
  try {
    const connection = connect({ url: embedded.url, log });
    await migrate(connection);
    const client = await prepareDemoClient(connection.db);
    const key = await connection.db
      .transaction()
      .execute((trx) => createApiKey(trx, client, 'demo'));
    const templates = await loadTemplates();
    const callback = withLoopback(config.callback);
    const app = createApp({
      db: connection.db,
      pool: connection.pool,
      log,
      templates,
      attachments: config.attachments,
      callback,
    });
    const api = await startListening(app, { host: '127.0.0.1', port: 0 });
    const sink = await startSink();
    const workerConnection = connectWorker(embedded.url, log);
    const worker = await startWorker({
      connection: workerConnection,
      log,
      templates,
      transports: [singleTransport(sink.url)],
      callback,
      timing: config.timing,
      publicUrl: api.url,
    });
    try {
      await play(caller(api.url, key), sink);
    } finally {
      await Promise.all([api.close(), worker.stop()]);
      await Promise.all([sink.close(), connection.close(), workerConnection.close()]);
    }
  } finally {
    await embedded.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

type Call = <Body>(method: string, path: string, body?: unknown) => Promise<Body>;

function caller(url: string, key: string): Call {
  return async (method, where, body) => {
    const response = await fetch(url + where, {
      method,
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    if (!response.ok)
      throw new Error(`${method} ${where}: ${response.status} ${await response.text()}`);
    return (await response.json()) as never;
  };
}

async function play(call: Call, sink: Sink): Promise<void> {
  const list = encodeURIComponent(LIST);
  const members = Array.from({ length: MEMBERS }, (_, index) => member(index));
  const imported = await call<Record<string, unknown>>(
    'POST',
    `/api/recipient-lists/${list}/members/bulk-upsert`,
    { members },
  );
  say(`POST /api/recipient-lists/${LIST}/members/bulk-upsert\n  → ${JSON.stringify(imported)}`);
  for (const [index, reason] of SUPPRESSED.entries()) {
    await call('PUT', `/api/suppressions/${members[index]!.email}`, { reason });
  }
  say(
    `${SUPPRESSED.length} of them are suppressed, ${UNSUBSCRIBED} unsubscribed, ${PENDING} have not confirmed yet.`,
  );

  const started = performance.now();
  const { send } = await call<{ send: Send }>('POST', `/api/recipient-lists/${list}/send`, {
    send_key: 'homework-score:ml-zoomcamp-2026:homework-1',
    template_key: 'homework-score-published',
    from_email: 'courses',
    requires_consent: true,
    shared_context: { course_title: 'ML Zoomcamp 2026', homework_title: 'Homework 1' },
    recipient_context: Object.fromEntries(
      members.map((one, index) => [one.source_object_key, score(one.name, index)]),
    ),
  });
  const took = Math.round(performance.now() - started);
  say(
    `POST /api/recipient-lists/${LIST}/send\n  → accepted in ${took} ms: ${send.counts.intended} members, each with its own score\n`,
  );

  const done = await watchSend(
    async () => (await call<{ send: Send }>('GET', `/api/sends/${send.id}`)).send,
  );
  const seconds = (performance.now() - started) / 1000;
  const skipped = Object.entries(done.skipped_by_reason).map(
    ([reason, count]) => `${reason} ${count}`,
  );
  say(`\nDone in ${seconds.toFixed(1)} s. Skipped: ${skipped.join(', ')}.\n`);
  await showMail(sink);
  say(countsLine(done.counts));
  if (sink.accepted !== done.counts.sent) {
    throw new Error(`the mail server got ${sink.accepted} mails, not ${done.counts.sent}`);
  }
}

function member(index: number) {
  const consent =
    index < 10
      ? undefined
      : index < 10 + UNSUBSCRIBED
        ? 'unsubscribed'
        : index < 10 + UNSUBSCRIBED + PENDING
          ? 'pending'
          : undefined;
  return {
    source_object_key: `enrollment-${index + 1}`,
    email: `learner-${index + 1}@example.com`,
    name: NAMES[index % NAMES.length]!,
    ...(consent && { consent }),
  };
}

function score(name: string, index: number) {
  const points = [index % 4, (index * 3) % 4, (index * 7) % 5];
  return {
    name,
    score: points.reduce((sum, one) => sum + one, 0),
    max_score: 10,
    details: points.map((one, question) => ({ label: `Question ${question + 1}`, points: one })),
    score_url: `https://courses.example/scores/${index + 1}`,
  };
}

async function showMail(sink: Sink): Promise<void> {
  const mail = sink.mails[Math.min(2, sink.mails.length - 1)]!;
  const email = await parseMail(mail);
  const text = (email.text ?? '').trim().replace(/^/gmu, '  │ ');
  say(
    `One of the ${sink.accepted} mails the mail server received:\n\n  To:      ${mail.to.join(', ')}\n  Subject: ${email.subject}\n\n${text}\n`,
  );
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
