// /unsubscribe/{token} and /confirm/{token}: what mail programs, scanners, people and strangers send.
import { createHash, randomBytes } from 'node:crypto';
import { beforeEach, describe, expect, it } from 'vitest';
import { connect } from '../../src/database/connect.ts';
import { createApp } from '../../src/http/app.ts';
import { readConfig } from '../../src/config.ts';
import { createLogger } from '../../src/log.ts';
import { startListening } from '../../src/commands/serve.ts';
import { readLinkKey, signToken, type LinkPurpose } from '../../src/recipients/links.ts';
import { useHarness } from '../support/harness.ts';
import { allRows, exchange, head } from './tools.ts';

const h = useHarness();

type Body = string | FormData | URLSearchParams;

const LIST_NAME = 'Kurse & <b>Neues</b> "x"';
let ref: { client_id: number; contact_id: number; list_id: number | null };
let key: Buffer;

beforeEach(async () => {
  await h.api('PUT', '/api/recipient-lists/news', { name: LIST_NAME });
  await h.api('PUT', '/api/recipient-lists/news/members/m1', { email: 'ada@list.example' });
  const { rows } = await h.database.pool.query<typeof ref>(
    'select client_id, contact_id, list_id from list_members',
  );
  ref = rows[0]!;
  key = await readLinkKey(h.database.db);
});

const urlFor = (purpose: LinkPurpose, more: Partial<typeof ref> = {}) =>
  `${h.url}/${purpose}/${signToken(key, { purpose, ...ref, ...more })}`;

async function ask(url: string, init: RequestInit = {}) {
  const response = await fetch(url, { redirect: 'manual', ...init });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

const post = (url: string, body?: Body, type?: string) =>
  ask(url, {
    method: 'POST',
    ...(body !== undefined && { body }),
    ...(type !== undefined && { headers: { 'content-type': type } }),
  });

async function state() {
  const { rows } = await h.database.pool.query(
    `
    select (select unsubscribed_at is not null from contacts where id = $1) as all,
      exists (select from list_unsubscribes where contact_id = $1) as list`.replaceAll(
      '$1',
      String(ref.contact_id),
    ),
  );
  return rows[0];
}

/** An answer to HEAD has none to compare with. */
let lastStyle = '';

function expectPage(answer: Awaited<ReturnType<typeof ask>>, status: number, label = ''): void {
  expect(answer.status, label).toBe(status);
  expect(answer.headers.get('content-type')).toMatch(/^text\/html; charset=utf-8$/i);
  expect(answer.headers.get('referrer-policy')).toBe('no-referrer');
  expect(answer.headers.get('x-robots-tag')).toBe('noindex');
  expect(answer.headers.get('cache-control')).toBe('no-store');
  const style = /<style>(.*)<\/style>/s.exec(answer.text)?.[1] ?? lastStyle;
  const hash = createHash('sha256').update(style).digest('base64');
  expect(answer.headers.get('content-security-policy')).toBe(
    `default-src 'none'; style-src 'sha256-${hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'`,
  );
  lastStyle = style;
  expect(answer.headers.get('set-cookie')).toBeNull();
  expect(answer.headers.get('location')).toBeNull();
  expect(answer.text).not.toMatch(/@list\.example|<script|https?:\/\//);
}

describe('GET', () => {
  it('shows who sends and which list, and changes nothing', async () => {
    const before = await allRows(h);
    for (const [purpose, button] of [
      ['unsubscribe', 'value="list"'],
      ['confirm', '<form method="post">'],
    ] as const) {
      const url = urlFor(purpose);
      // As scanners do: with a query of their own, several times, as HEAD, with a body to come.
      for (const one of [url, `${url}?utm_source=x&y=%zz`, url]) {
        const answer = await ask(one);
        expectPage(answer, 200);
        expect(answer.text).toContain('Kurse &amp; &lt;b&gt;Neues&lt;/b&gt; &quot;x&quot;');
        expect(answer.text).toContain('acme');
        expect(answer.text).toContain(button);
      }
      const answer = await ask(url, { method: 'HEAD' });
      expectPage(answer, 200);
      expect(answer.text).toBe('');
    }
    expect(await allRows(h)).toEqual(before);
  });

  it('names the list by its key where it has no name, and no list where the link has none', async () => {
    await h.api('PUT', '/api/recipient-lists/news', { name: null });
    expect((await ask(urlFor('unsubscribe'))).text).toContain('<strong dir="auto">news</strong>');
    const all = await ask(urlFor('unsubscribe', { list_id: null }));
    expectPage(all, 200);
    expect(all.text).not.toContain('value="list"');
    expect(all.text).toContain('value="all"');
  });

  it('says what has been done already', async () => {
    await post(urlFor('unsubscribe'));
    const list = await ask(urlFor('unsubscribe'));
    expect(list.text).toContain('You are unsubscribed');
    expect(list.text).toContain('value="all"');
    await post(urlFor('unsubscribe'), new URLSearchParams({ scope: 'all' }));
    expect((await ask(urlFor('unsubscribe'))).text).not.toContain('<form');
  });
});

describe('POST /unsubscribe', () => {
  const oneClick = 'List-Unsubscribe=One-Click';
  const multipart = (name: string, value: string) => {
    const form = new FormData();
    form.append(name, value);
    return form;
  };
  const urlencoded = 'application/x-www-form-urlencoded';
  const bodies: [string, Body | undefined, string | undefined][] = [
    ['urlencoded', oneClick, urlencoded],
    ['urlencoded with a charset', oneClick, 'Application/X-WWW-Form-urlencoded; charset=UTF-8'],
    ['multipart', multipart('List-Unsubscribe', 'One-Click'), undefined],
    ['empty', undefined, undefined],
    ['empty with a type', '', urlencoded],
    ['empty with another type', '', 'application/json'],
    ['other words', 'unsubscribe=yes', urlencoded],
    ["the page's button", 'scope=list', urlencoded],
    ["the page's button, multipart", multipart('scope', 'list'), undefined],
  ];

  it.each(bodies)('%s: from the list alone', async (_name, body, type) => {
    const answer = await post(urlFor('unsubscribe'), body, type);
    expectPage(answer, 200);
    expect(answer.text).toContain('You are unsubscribed');
    expect(await state()).toEqual({ list: true, all: false });
  });

  it.each(bodies)('%s: from everything where the link names no list', async (_name, body, type) => {
    expectPage(await post(urlFor('unsubscribe', { list_id: null }), body, type), 200);
    expect(await state()).toEqual({ list: false, all: true });
  });

  it('scope=all is everything of this client, in either form', async () => {
    for (const body of [new URLSearchParams({ scope: 'all' }), multipart('scope', 'all')]) {
      await h.database.pool.query('update contacts set unsubscribed_at = null');
      expectPage(await post(urlFor('unsubscribe'), body), 200);
      expect(await state()).toEqual({ list: false, all: true });
    }
  });

  it('twenty at once, and again: the first time stands', async () => {
    for (const scope of ['list', 'all']) {
      const body = () => new URLSearchParams({ scope });
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => post(urlFor('unsubscribe'), body())),
      );
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
      const before = await allRows(h);
      expectPage(await post(urlFor('unsubscribe'), body()), 200);
      expect(await allRows(h)).toEqual(before);
    }
    expect(await state()).toEqual({ list: true, all: true });
  });

  it('and a confirmation at the same time leave one or the other, without an error', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => post(urlFor(index % 2 ? 'confirm' : 'unsubscribe'))),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    await post(urlFor('confirm'));
    expect(await state()).toEqual({ list: false, all: false });
  });

  it('is 200 for a list that is deleted and a person who is erased', async () => {
    await h.api('DELETE', '/api/recipient-lists/news');
    await h.database.pool.query(
      'update contacts set email = null, email_given = null, name = null, erased_at = now()',
    );
    for (const purpose of ['unsubscribe', 'confirm'] as const) {
      expectPage(await ask(urlFor(purpose)), 200);
      expectPage(await post(urlFor(purpose)), 200);
    }
    for (const gone of [{ contact_id: 9999999 }, { list_id: 9999999 }, { client_id: 9999999 }]) {
      const before = await allRows(h);
      for (const purpose of ['unsubscribe', 'confirm'] as const) {
        expectPage(await ask(urlFor(purpose, gone)), 200);
        expectPage(await post(urlFor(purpose, { ...gone, list_id: 9999999 })), 200);
      }
      expect(await allRows(h)).toEqual(before);
    }
  });

  it('with a body that is none of ours changes nothing', async () => {
    const before = await allRows(h);
    const url = urlFor('unsubscribe');
    const refused: [number, Body, string | undefined][] = [
      [415, oneClick, 'text/plain'],
      [415, '{"scope":"all"}', 'application/json'],
      [415, 'x', 'multipart/form-datax; boundary=x'],
      [415, oneClick, ''],
      [400, 'scope=everything', urlencoded],
      [400, 'scope=', urlencoded],
      [400, multipart('scope', 'x'), undefined],
      [400, oneClick, 'multipart/form-data'],
      [400, '--x\r\nnonsense', 'multipart/form-data; boundary=x'],
      [413, 'x'.repeat(4097), urlencoded],
      [413, 'x'.repeat(1_000_000), urlencoded],
      [413, multipart('List-Unsubscribe', 'x'.repeat(5000)), undefined],
    ];
    for (const [status, body, type] of refused) {
      expectPage(await post(url, body, type), status, `${status} for ${type}`);
    }
    // Announced, and chunked without an end to its size.
    const { pathname } = new URL(url);
    const lines = [`POST ${pathname} HTTP/1.1`, 'Host: x', `Content-Type: ${urlencoded}`];
    const announced = await exchange(h.url, [head([...lines, 'Content-Length: 99999999'])]);
    expect(announced!.status).toBe(413);
    const chunk = `1000\r\n${'x'.repeat(4096)}\r\n`;
    const chunked = await exchange(h.url, [
      head([...lines, 'Transfer-Encoding: chunked']),
      chunk,
      chunk,
    ]);
    expect(chunked!.status).toBe(413);
    expect(await allRows(h)).toEqual(before);
  });
});

describe('a link that is not ours', () => {
  it('is 404 whatever is wrong with it, and nothing more is said', async () => {
    const before = await allRows(h);
    const token = urlFor('unsubscribe').split('/').at(-1)!;
    const other = randomBytes(32);
    const flipped = Array.from({ length: token.length }, (_, at) => {
      const letter = token[at] === 'A' ? 'B' : 'A';
      return token.slice(0, at) + letter + token.slice(at + 1);
    });
    const tokens = [
      ...flipped,
      token.slice(0, -1),
      `${token}A`,
      `${token}=`,
      `${token}/`,
      token.toLowerCase(),
      signToken(other, { purpose: 'unsubscribe', ...ref }),
      urlFor('confirm').split('/').at(-1)!,
      randomBytes(33).toString('base64url'),
      '%00',
      '%ff',
      '%',
      "'%20or%201=1--",
      '..%2f..%2fapi',
      'x'.repeat(8_000),
      '',
    ];
    const texts = new Set<string>();
    for (const one of tokens) {
      for (const method of ['GET', 'POST']) {
        const answer = await ask(`${h.url}/unsubscribe/${one}`, { method });
        expectPage(answer, 404, `${method} ${one.slice(0, 60)}`);
        texts.add(answer.text);
      }
    }
    expectPage(await ask(`${h.url}/confirm/${token}`, { method: 'POST' }), 404);
    expect(texts.size).toBe(1);
    expect(await allRows(h)).toEqual(before);
  });

  it('nor are other methods', async () => {
    for (const method of ['PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
      const answer = await ask(urlFor('unsubscribe'), { method });
      expectPage(answer, 405, method);
      expect(answer.headers.get('allow')).toBe('GET, HEAD, POST');
    }
  });
});

it('a link of another client does nothing here', async () => {
  const other = await h.newClient('other');
  await other.api('PUT', '/api/recipient-lists/theirs/members/m', { email: 'ada@list.example' });
  const { rows } = await h.database.pool.query<typeof ref>(
    `select client_id, contact_id, list_id from list_members where client_id <> ${ref.client_id}`,
  );
  // Ids of two clients never meet in one token that we signed; were it so, nothing would be written.
  for (const mixed of [
    { ...ref, list_id: rows[0]!.list_id },
    { ...ref, contact_id: rows[0]!.contact_id },
  ]) {
    expectPage(await post(urlFor('unsubscribe', mixed)), 200);
    expectPage(await post(urlFor('confirm', mixed)), 200);
  }
  expect(await state()).toEqual({ list: false, all: false });
});

it('an unreachable database is a page, too', async () => {
  const log = createLogger('silent');
  const url = new URL(h.database.url);
  url.port = '1';
  const connection = connect({ url: url.href, log });
  const { attachments, callback } = readConfig({});
  const { db, pool } = connection;
  const app = createApp({ db, pool, log, templates: h.templates, attachments, callback });
  const listening = await startListening(app, { host: '127.0.0.1', port: 0 });
  try {
    const away = urlFor('unsubscribe').replace(h.url, listening.url);
    for (const method of ['GET', 'POST']) {
      const answer = await ask(away, { method });
      expectPage(answer, 503);
      expect(answer.headers.get('retry-after')).toBe('5');
    }
  } finally {
    await listening.close();
    await connection.close();
  }
});

describe('POST …/members/{key}/confirmation', () => {
  const path = '/api/recipient-lists/news/members/m1/confirmation';

  it('needs a list, a member, consent that is missing, and a template that asks', async () => {
    const codes: [string, object | undefined, number, string][] = [
      [path, undefined, 409, 'consent_not_pending'],
      [path.replace('news', 'none'), {}, 404, 'not_found'],
      [path.replace('m1', 'none'), {}, 404, 'not_found'],
      [path, { template_key: 'none' }, 422, 'template_not_found'],
      [path, { template_key: 'course-newsletter' }, 422, 'template_not_confirming'],
      [path, { template_key: 'default_template' }, 422, 'template_not_confirming'],
      [path, { from_email: 'nobody' }, 422, 'sender_not_found'],
      [path, { shared_context: { list: 'x' } }, 400, 'validation_failed'],
    ];
    const before = await allRows(h);
    for (const [at, body, status, code] of codes) {
      const answer = await h.api('POST', at, body);
      expect([answer.status, answer.body.code], `${at} ${JSON.stringify(body)}`).toEqual([
        status,
        code,
      ]);
    }
    expect(await allRows(h)).toEqual(before);
    await h.api('PUT', '/api/contacts/ada@list.example', { consent: 'pending' });
    for (const body of [undefined, {}, { template_key: null, shared_context: null }]) {
      expect((await h.api('POST', path, body)).status).toBe(202);
    }
    await h.api('DELETE', '/api/recipient-lists/news/members/m1');
    expect((await h.api('POST', path)).status).toBe(404);
  });

  it('reads a body that has no type as one: it is refused, not passed over', async () => {
    await h.api('PUT', '/api/contacts/ada@list.example', { consent: 'pending' });
    const lines = [`POST ${path} HTTP/1.1`, 'Host: x', `Authorization: Bearer ${h.key}`];
    const chunked = await exchange(h.url, [
      head([...lines, 'Transfer-Encoding: chunked']),
      '2\r\n{}\r\n0\r\n\r\n',
    ]);
    expect(chunked!.status).toBe(415);
    const empty = await h.api('POST', path, '', { 'content-type': 'application/json' });
    expect(empty.status).toBe(202);
  });
});
