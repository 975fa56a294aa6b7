// /healthz and /readyz: no key needed.
import { expect, it } from 'vitest';
import { startListening } from '../../src/commands/serve.ts';
import { connect } from '../../src/database/connect.ts';
import { createApp } from '../../src/http/app.ts';
import { readConfig } from '../../src/config.ts';
import { createLogger } from '../../src/log.ts';
import { useHarness } from '../support/harness.ts';

const h = useHarness();

const ask = async (url: string) => {
  const response = await fetch(url);
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
};

/** The API on another database, for the time of `use`. */
async function withApi(databaseUrl: string, use: (url: string) => Promise<void>): Promise<void> {
  const log = createLogger('silent');
  const connection = connect({ url: databaseUrl, log });
  const app = createApp({
    db: connection.db,
    pool: connection.pool,
    log,
    templates: h.templates,
    attachments: readConfig({}).attachments,
    callback: readConfig({}).callback,
  });
  const listening = await startListening(app, { host: '127.0.0.1', port: 0 });
  try {
    await use(listening.url);
  } finally {
    await listening.close();
    await connection.close();
  }
}

it('says that the process is up and can serve', async () => {
  expect(await ask(`${h.url}/healthz`)).toEqual({ status: 200, body: { status: 'ok' } });
  expect(await ask(`${h.url}/readyz`)).toMatchObject({ status: 200, body: { status: 'ready' } });
});

it('is up and not ready while the database cannot be reached; a call is 503', async () => {
  const url = new URL(h.database.url);
  url.port = '1';
  await withApi(url.href, async (api) => {
    expect((await ask(`${api}/healthz`)).status).toBe(200);
    expect(await ask(`${api}/readyz`)).toMatchObject({
      status: 503,
      body: { status: 'not_ready', reason: 'the database cannot be reached' },
    });
    const call = await fetch(`${api}/api/senders`, {
      headers: { authorization: `Bearer ${h.key}` },
    });
    expect(call.status).toBe(503);
    expect(call.headers.get('content-type')).toBe('application/problem+json');
    expect(call.headers.get('retry-after')).toMatch(/^\d+$/);
    expect(await call.json()).toMatchObject({ status: 503, code: 'unavailable' });
  });
});

it('is not ready while the database is not migrated', async () => {
  const name = `${new URL(h.database.url).pathname.slice(1)}_bare`;
  await h.database.pool.query(`create database ${name}`);
  try {
    const url = new URL(h.database.url);
    url.pathname = `/${name}`;
    await withApi(url.href, async (api) => {
      const { status, body } = await ask(`${api}/readyz`);
      expect(status).toBe(503);
      expect(body).toMatchObject({ status: 'not_ready', pending: expect.any(Array) });
      expect(body.pending).not.toEqual([]);
    });
  } finally {
    await h.database.pool.query(`drop database ${name}`);
  }
});
