// Drives the product as its users do: HTTP in, workers run, then look at the mail a real SMTP server
// got and at the rows.
import { afterEach, beforeAll, beforeEach, expect } from 'vitest';
import type { CallbackPolicy } from '../../src/callback/post.ts';
import { createApiKey } from '../../src/clients/api-keys.ts';
import { createClient } from '../../src/clients/clients.ts';
import { createApp } from '../../src/http/app.ts';
import { readConfig, type Timing } from '../../src/config.ts';
import { createLogger } from '../../src/log.ts';
import { singleTransport } from '../../src/smtp/transport-config.ts';
import type { Send } from '../../src/sends/sends.ts';
import { startListening, type Listening } from '../../src/commands/serve.ts';
import { loadTemplates, type Templates } from '../../src/templates/registry.ts';
import {
  connectWorker,
  startWorker,
  type Worker,
  type WorkerOptions,
} from '../../src/worker/worker.ts';
import { useDatabase, type TestDatabase } from './database.ts';
import { SmtpSink } from './smtp-sink.ts';
import { until } from './until.ts';

export interface Answer<Body = any> {
  status: number;
  body: Body;
  headers: Headers;
}

export type Api = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<Answer>;

export interface Harness {
  database: TestDatabase;
  templates: Templates;
  sink: SmtpSink;
  url: string;
  /** Calls the API as the client `acme`, which has the default sender `courses`. */
  api: Api;
  key: string;
  /** Another client, and its calls. */
  newClient(key: string): Promise<{ api: Api; key: string }>;
  startWorker(
    options?: Partial<WorkerOptions> & { smtpUrl?: string },
  ): Promise<Worker & { close(): Promise<void> }>;
  /** Starts a worker, waits until the send has nothing queued, stops it; returns the send. */
  drain(sendId: string): Promise<Send>;
  waitFor(
    sendId: string,
    condition: (send: Send) => boolean | Promise<boolean>,
    timeoutMs?: number,
  ): Promise<Send>;
}

/** Retries in milliseconds where the product waits minutes. */
export const FAST: Timing = {
  retry: { delays: [0.05], urgent: [0.05], window: 60, greylist: 0 },
  liveness: { heartbeatMs: 200, deadAfterMs: 1000 },
  shutdownGraceMs: 5000,
  breakerSeconds: 0.2,
};

/** Callbacks go to providers on this machine. */
export const CALLBACK: CallbackPolicy = {
  ...readConfig({}).callback,
  allow: ['127.0.0.0/8', '::1'],
};

export function useHarness(): Harness {
  const database = useDatabase();
  const harness = { database } as Harness;
  const workers: { worker: Worker; close(): Promise<void> }[] = [];
  let listening: Listening;

  beforeAll(async () => {
    harness.templates = await loadTemplates();
  });

  beforeEach(async () => {
    const log = createLogger('silent');
    const app = createApp({
      db: database.db,
      pool: database.pool,
      log,
      templates: harness.templates,
      attachments: readConfig({}).attachments,
      callback: CALLBACK,
    });
    listening = await startListening(app, { host: '127.0.0.1', port: 0 });
    harness.url = listening.url;
    harness.sink = await new SmtpSink().start();
    const client = await harness.newClient('acme');
    harness.api = client.api;
    harness.key = client.key;
    await harness.api('PUT', '/api/senders/courses', {
      email: 'courses@school.example',
      name: 'Courses',
    });
  });

  afterEach(async () => {
    await Promise.all(workers.splice(0).map((one) => one.close()));
    await Promise.all([listening.close(), harness.sink.stop()]);
    await expectLaw(database);
  });

  harness.newClient = async (name) => {
    const key = await database.db
      .transaction()
      .execute(async (trx) => createApiKey(trx, await createClient(trx, name)));
    return { key, api: caller(() => harness.url, key) };
  };

  harness.startWorker = async ({ smtpUrl = harness.sink.url, ...options } = {}) => {
    const log = createLogger(process.env.TEST_LOG ?? 'silent');
    const connection = connectWorker(database.url, log);
    const worker = await startWorker({
      connection,
      log,
      templates: harness.templates,
      transports: [singleTransport(smtpUrl)],
      callback: CALLBACK,
      timing: FAST,
      publicUrl: harness.url,
      ...options,
    });
    let closed: Promise<void> | undefined;
    const close = () => (closed ??= worker.stop().then(() => connection.close()));
    workers.push({ worker, close });
    return { ...worker, close };
  };

  harness.waitFor = (sendId, condition, timeoutMs) =>
    until(
      `send ${sendId}`,
      async () => {
        const { body } = await harness.api('GET', `/api/sends/${sendId}`);
        const send = body.send as Send;
        expectAddsUp(send);
        return (await condition(send)) && send;
      },
      timeoutMs,
    );

  harness.drain = async (sendId) => {
    const worker = await harness.startWorker();
    const send = await harness.waitFor(sendId, (one) => one.completed_at !== null);
    await worker.stop();
    return send;
  };

  return harness;
}

export function caller(url: () => string, key: string): Api {
  return async (method, path, body, headers = {}) => {
    const response = await fetch(url() + path, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      body: text === '' ? undefined : JSON.parse(text),
    };
  };
}

function expectAddsUp({ counts }: Send): void {
  const { intended, queued, sent, failed, skipped, unknown } = counts;
  expect(queued + sent + failed + skipped + unknown).toBe(intended);
}

/** In one snapshot of the database: the counts add up, and equal the recount from the messages. */
export async function expectLaw({ pool }: TestDatabase): Promise<void> {
  const { rows } = await pool.query(`
    select c.*, to_jsonb(a) as audit,
      jsonb_build_object('client_key', c.client_key, 'send_id', c.send_id, 'send_key', c.send_key,
        'intended', c.intended, 'queued', c.queued, 'sent', c.sent, 'failed', c.failed,
        'skipped', c.skipped, 'unknown', c.unknown) as counts,
      coalesce((select sum(members) from reporting.send_skips k where k.send_id = c.send_id), 0) as skips
    from reporting.send_counts c join reporting.send_counts_audit a using (send_id)`);
  for (const row of rows) {
    expect(row.audit).toEqual(row.counts);
    expect(row.queued + row.sent + row.failed + row.skipped + row.unknown).toBe(row.intended);
    expect(row.skips).toBe(row.skipped);
    if (row.state === 'completed') expect(row.queued).toBe(0);
  }
}

/** `count` members with keys m1…, addresses m1@list.example… */
export function someMembers(count: number, more: Record<string, unknown> = {}) {
  return Array.from({ length: count }, (_, index) => ({
    source_object_key: `m${index + 1}`,
    email: `m${index + 1}@list.example`,
    name: `Member ${index + 1}`,
    ...more,
  }));
}

/** A trigger of the transactional template, with a new send_key. */
export function scoreSend(more: Record<string, unknown> = {}) {
  return {
    send_key: 'homework-score:1',
    template_key: 'homework-score-published',
    shared_context: { course_title: 'ML Zoomcamp 2026', homework_title: 'Homework 1' },
    ...more,
  };
}
