// Keys and clients: no answer without a live key, and another client's objects are not there.
import { beforeEach, describe, expect, it } from 'vitest';
import { createApiKey, revokeApiKey } from '../../src/clients/api-keys.ts';
import { findClient } from '../../src/clients/clients.ts';
import { createApp } from '../../src/http/app.ts';
import { readConfig } from '../../src/config.ts';
import { createLogger } from '../../src/log.ts';
import { caller, scoreSend, someMembers, useHarness, type Api } from '../support/harness.ts';
import { ENDPOINTS } from './endpoints.ts';
import { allRows, expectProblem } from './tools.ts';

const h = useHarness();

describe('a call', () => {
  it('without a key, or with one that is not live, is 401 at every endpoint', async () => {
    const [prefix, id, secret] = h.key.split('_') as [string, string, string];
    const wrong: Record<string, string | undefined> = {
      'no header': undefined,
      'an empty header': '',
      'no key': 'Bearer ',
      'another scheme': `Basic ${Buffer.from(`x:${h.key}`).toString('base64')}`,
      'the key alone': h.key,
      'another secret': `Bearer ${prefix}_${id}_${secret.split('').reverse().join('')}`,
      'another prefix': `Bearer ${prefix}_AAAAAAAA_${secret}`,
      'the prefix alone': `Bearer ${prefix}_${id}`,
      'capitals changed': `Bearer ${h.key.toUpperCase()}`,
      'two keys': `Bearer ${h.key}, Bearer ${h.key}`,
      'something long': `Bearer ${'x'.repeat(4_000)}`,
      quotes: `Bearer rp_' or 1=1 --`,
    };
    await h.api('GET', '/api/senders');
    const before = await allRows(h);
    for (const { method, path, body } of ENDPOINTS) {
      for (const [what, authorization] of Object.entries(wrong)) {
        const response = await fetch(h.url + path, {
          method,
          headers: {
            ...(authorization !== undefined && { authorization }),
            'content-type': 'application/json',
          },
          ...(body && { body: JSON.stringify(body) }),
        });
        const answer = {
          status: response.status,
          headers: response.headers,
          body: await response.json(),
        };
        expectProblem(answer, 401, 'unauthenticated', undefined, `${method} ${path} with ${what}`);
        expect(answer.headers.get('www-authenticate')).toBe('Bearer');
      }
    }
    expect(await allRows(h)).toEqual(before);
  });

  it('is served with either of two live keys, and not with a revoked one', async () => {
    const { db } = h.database;
    const second = await db
      .transaction()
      .execute(async (trx) => createApiKey(trx, await findClient(trx, 'acme'), 'rotation'));
    const withSecond = caller(() => h.url, second);
    await withSecond('PUT', '/api/recipient-lists/l', {});
    expect((await h.api('GET', '/api/recipient-lists/l')).status).toBe(200);
    await db.transaction().execute((trx) => revokeApiKey(trx, h.key));
    expectProblem(await h.api('GET', '/api/recipient-lists/l'), 401, 'unauthenticated');
    expect((await withSecond('GET', '/api/recipient-lists/l')).status).toBe(200);
  });

  it('takes the scheme in any case', async () => {
    const response = await fetch(`${h.url}/api/senders`, {
      headers: { authorization: `bearer  ${h.key}` },
    });
    expect(response.status).toBe(200);
  });

  it('to a path or with a method that is not there is a 404 problem', async () => {
    for (const [method, path] of [
      ['GET', '/'],
      ['GET', '/api'],
      ['GET', '/api/nothing'],
      ['PATCH', '/api/senders/courses'],
      ['POST', '/api/senders'],
      ['DELETE', '/api/sends/019af5d1-0000-7000-8000-000000000000'],
      ['OPTIONS', '/api/senders'],
    ] as const) {
      expectProblem(await h.api(method, path), 404, 'not_found', undefined, `${method} ${path}`);
    }
  });
});

it('is needed at every endpoint there is, and the tests know them all', () => {
  const log = createLogger('silent');
  const { routes } = createApp({
    db: h.database.db,
    pool: h.database.pool,
    log,
    templates: h.templates,
    attachments: readConfig({}).attachments,
    callback: readConfig({}).callback,
  });
  const unknown = routes
    .filter(
      ({ method, path }) =>
        method !== 'ALL' && path.startsWith('/api/') && !path.startsWith('/api/v1'),
    )
    .filter(({ method, path }) => {
      const shape = new RegExp(`^${path.replaceAll(/:\w+/g, '[^/]+')}(\\?|$)`);
      return !ENDPOINTS.some((known) => known.method === method && shape.test(known.path));
    })
    .map(({ method, path }) => `${method} ${path}`);
  expect(unknown, 'missing in test/http/endpoints.ts').toEqual([]);
});

describe('the objects of one client', () => {
  let other: Api;
  let send: { id: string };
  let message: { id: string };

  beforeEach(async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(1) });
    await h.api('PUT', '/api/suppressions/s@list.example', { reason: 'manual' });
    const triggered = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
    send = triggered.body.send;
    const test = await h.api('POST', '/api/templates/default_template/test-send', {
      to: 't@list.example',
    });
    message = test.body.message;
    other = (await h.newClient('other')).api;
    await other('PUT', '/api/senders/own', { email: 'own@other.example' });
  });

  it('answer 404 to another', async () => {
    const before = await allRows(h);
    const calls: [string, string, unknown?][] = [
      ['DELETE', '/api/senders/courses'],
      ['GET', '/api/contacts/m1@list.example'],
      ['DELETE', '/api/suppressions/s@list.example'],
      ['GET', '/api/recipient-lists/l'],
      ['DELETE', '/api/recipient-lists/l'],
      ['GET', '/api/recipient-lists/l/members'],
      ['POST', '/api/recipient-lists/l/send', scoreSend({ send_key: 'mine' })],
      ['GET', `/api/sends/${send.id}`],
      ['GET', `/api/sends/${send.id}/messages`],
      ['GET', '/api/sends/by-key/homework-score:1'],
      ['GET', `/api/messages/${message.id}`],
    ];
    for (const [method, path, body] of calls) {
      expectProblem(
        await other(method, path, body),
        404,
        'not_found',
        undefined,
        `${method} ${path}`,
      );
    }
    const foreign = { to: 'x@list.example', from_email: 'courses' };
    expectProblem(
      await other('POST', '/api/templates/default_template/test-send', foreign),
      422,
      'sender_not_found',
    );
    expect(await allRows(h)).toEqual(before);
  });

  it('stand in no list of another', async () => {
    for (const [path, plural] of [
      ['/api/senders', 'senders'],
      ['/api/suppressions', 'suppressions'],
      ['/api/recipient-lists', 'recipient_lists'],
      ['/api/sends', 'sends'],
      ['/api/messages?email=t@list.example', 'messages'],
    ] as const) {
      const mine = await h.api('GET', path);
      expect(mine.body[plural].length, path).toBeGreaterThan(0);
      const { body } = await other('GET', path);
      expect(body[plural].map((one: { id?: string }) => one.id)).toEqual(
        plural === 'senders' ? ['own'] : [],
      );
    }
  });

  it('are not touched by another that uses the same keys and addresses', async () => {
    const mine = async () => [
      (await h.api('GET', '/api/recipient-lists/l/members')).body,
      (await h.api('GET', '/api/contacts/m1@list.example')).body,
      (await h.api('GET', '/api/suppressions')).body,
      (await h.api('GET', '/api/senders')).body,
    ];
    const before = await mine();
    expect((await other('PUT', '/api/senders/courses', { email: 'z@other.example' })).status).toBe(
      201,
    );
    expect((await other('PUT', '/api/contacts/m1@list.example', { name: 'Z' })).status).toBe(201);
    expect(
      (await other('PUT', '/api/suppressions/s@list.example', { reason: 'complaint' })).status,
    ).toBe(201);
    const moved = { email: 'm1@list.example', consent: 'unsubscribed' };
    expect((await other('PUT', '/api/recipient-lists/l/members/m1', moved)).status).toBe(201);
    expect((await other('DELETE', '/api/recipient-lists/l/members/m1')).status).toBe(204);
    expect((await other('DELETE', '/api/recipient-lists/l')).status).toBe(204);
    expect(await mine()).toEqual(before);
  });
});
