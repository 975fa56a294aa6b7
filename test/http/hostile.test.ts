// Hostile input at every endpoint: the answer is a 4xx problem that names what is wrong, never a 5xx,
// and nothing is written. What only looks hostile is taken, and comes back as it was given.
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { someMembers, useHarness, type Answer } from '../support/harness.ts';
import { ENDPOINTS, type Endpoint } from './endpoints.ts';
import { allRows, exchange, expectProblem, head } from './tools.ts';

const h = useHarness();

const MIB = 1024 * 1024;
const WITH_BODY = ENDPOINTS.filter((endpoint) => endpoint.body);
const nameOf = ({ method, path }: Endpoint) => `${method} ${path}`;
const named = (endpoints: Endpoint[]) =>
  endpoints.map((endpoint) => [nameOf(endpoint), endpoint] as const);

let before: Record<string, unknown>;

beforeEach(async () => {
  await h.api('POST', '/api/recipient-lists/seeded/members/bulk-upsert', {
    members: someMembers(2),
  });
  before = await allRows(h);
});

// Whatever a test of this file did, it was refused: nothing is written, and the API still serves.
const mayWrite = new Set<string>();
afterEach(async ({ task }) => {
  if (!mayWrite.has(task.name)) expect(await allRows(h)).toEqual(before);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  expect((await h.api('GET', '/api/senders')).status).toBe(200);
});

/** A call with any bytes as its body. */
async function call(
  endpoint: Endpoint,
  body: string | Buffer | undefined,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(h.url + endpoint.path, {
    method: endpoint.method,
    headers: {
      authorization: `Bearer ${h.key}`,
      'content-type': 'application/json',
      ...headers,
    },
    ...(body !== undefined && { body }),
  });
  return readAnswer(response);
}

async function readAnswer(response: Response): Promise<Answer> {
  const text = await response.text();
  const body: unknown = text === '' ? undefined : JSON.parse(text);
  return { status: response.status, headers: response.headers, body };
}

/** Refused as a whole, or, where it is about one member of a bulk call, that member alone. */
function expectRefused(endpoint: Endpoint, answer: Answer, path: string, label: string): void {
  const member = /^members\.(\d+)\.?(.*)$/.exec(path);
  if (member && answer.status === 200) {
    expect(answer.body.rejected, label).toEqual([
      {
        index: Number(member[1]),
        source_object_key: member[2] === 'source_object_key' ? null : expect.any(String),
        message: expect.stringMatching(new RegExp(`^${member[2]}`)),
      },
    ]);
    return;
  }
  expectProblem(answer, 400, 'validation_failed', undefined, `${nameOf(endpoint)} ${label}`);
  const paths = answer.body.errors.map((error: { path: string }) => error.path);
  expect(paths, `${label}: ${JSON.stringify(answer.body)}`).toContain(path);
}

type Step = string | number;

/** Every value in a body with its path, the body itself first. */
function* valuesOf(value: unknown, path: Step[] = []): Generator<[Step[], unknown]> {
  yield [path, value];
  if (typeof value !== 'object' || value === null) return;
  for (const [name, below] of Object.entries(value)) yield* valuesOf(below, [...path, name]);
}

/** The body with one value replaced. */
function withValue(body: unknown, [step, ...rest]: Step[], value: unknown): unknown {
  if (step === undefined) return value;
  const copy = structuredClone(body) as Record<Step, unknown>;
  copy[step] = withValue(copy[step], rest, value);
  return copy;
}

/** The body's JSON with one value replaced by text that JSON.stringify would not write. */
function withText(body: unknown, path: Step[], text: string): string {
  return JSON.stringify(withValue(body, path, '\u2603')).replace('"\u2603"', text);
}

const deepObject = (depth: number) => '{"a":'.repeat(depth) + '1' + '}'.repeat(depth);
const deepArray = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);

describe.each(named(WITH_BODY))('%s: a body', (_name, endpoint) => {
  const { body, free = [], mib = 1 } = endpoint as Endpoint & { body: object };
  const good = JSON.stringify(body);

  it('that is no JSON object is refused', async () => {
    const bodies: Record<string, string | Buffer> = {
      empty: '',
      'white space': ' \n',
      truncated: good.slice(0, -1),
      'truncated in a string': good.slice(0, 5),
      'one brace': '{',
      'two objects': good + good,
      'text after it': `${good}x`,
      'a trailing comma': `${good.slice(0, -1)},}`,
      'single quotes': good.replaceAll('"', "'"),
      'a comment': `/* */${good}`,
      NaN: '{"a":NaN}',
      'a form': 'email=a@b.example',
      'a raw NUL': `\0${good}`,
      'a raw line break in a string': good.replace('":"', '":"\n'),
      'a bad escape': good.replace('":"', '":"\\x'),
      'half an escape': good.replace('":"', '":"\\u12'),
      'bytes that are no UTF-8': Buffer.from([0xff, 0xfe, 0xfd]),
      'UTF-16': Buffer.from(`\ufeff${good}`, 'utf16le'),
      'a gzip header': Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0]),
      null: 'null',
      true: 'true',
      'a number': '7',
      'a string': '"text"',
      'an array': '[]',
      'the body in an array': `[${good}]`,
      'the body as a string': JSON.stringify(good),
      '10,000 brackets': deepArray(10_000),
      'a million open brackets': '['.repeat(MIB - 1),
      'an endless number': '9'.repeat(100_000),
    };
    for (const [what, bytes] of Object.entries(bodies)) {
      const answer = await call(endpoint, bytes);
      expectProblem(answer, 400, 'validation_failed', undefined, what);
      expect(answer.body.detail, what).toMatch(/body|nested/);
    }
    // Invalid UTF-8 inside a string: a lone byte, an overlong form, a surrogate.
    for (const bytes of [[0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80]]) {
      const [start, end] = [
        good.slice(0, good.indexOf('":"') + 3),
        good.slice(good.indexOf('":"') + 3),
      ];
      const answer = await call(
        endpoint,
        Buffer.concat([Buffer.from(start), Buffer.from(bytes), Buffer.from(end)]),
      );
      expectProblem(answer, 400, 'validation_failed', undefined, `bytes ${bytes}`);
      expect(answer.body.detail).toBe('The body is not valid UTF-8.');
    }
  });

  it('of another content type is refused', async () => {
    for (const type of [
      'text/plain',
      'text/json',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'application/xml',
      'application/jsonx',
      'application/octet-stream',
      'application/json, text/plain',
      '*/*',
      'x',
      '',
    ]) {
      const answer = await call(endpoint, good, { 'content-type': type });
      expectProblem(answer, 415, 'unsupported_media_type', undefined, type);
    }
    const none = await exchange(h.url, [
      head([
        `${endpoint.method} ${endpoint.path} HTTP/1.1`,
        'Host: x',
        `Authorization: Bearer ${h.key}`,
        `Content-Length: ${good.length}`,
      ]),
      good,
    ]);
    expectProblem(none!, 415, 'unsupported_media_type');
  });

  it('with a wrong type in any field is refused, and the field is named', async () => {
    const wrong: Record<string, unknown[]> = {
      string: [1, true, [], {}, ['x'], { toString: 'x' }],
      number: ['1', true, [], {}],
      boolean: [0, 1, 'true', [], {}],
      object: [1, true, 'x', '', '{}', [], [1]],
    };
    for (const [path, value] of valuesOf(body)) {
      const at = path.join('.');
      if (path.length === 0 || free.some((one) => at.startsWith(`${one}.`))) continue;
      const kind = Array.isArray(value) ? 'object' : typeof value;
      for (const bad of wrong[kind]!) {
        if (Array.isArray(value) && Array.isArray(bad)) continue;
        const answer = await call(endpoint, JSON.stringify(withValue(body, path, bad)));
        const label = `${at} = ${JSON.stringify(bad)}`;
        if (/^members\.\d+$/.test(at)) {
          expect([answer.status, answer.body.rejected.length], label).toEqual([200, 1]);
        } else if (at === 'recipient_context.m1.details.0' && Array.isArray(bad)) {
          expectProblem(answer, 400, 'validation_failed', undefined, label);
        } else {
          expectRefused(endpoint, answer, at, label);
        }
      }
    }
    await undoMembers();
  });

  it('with a field it does not know is refused, and the field is named', async () => {
    const names = ['unknown', 'Email', 'constructor', 'prototype', 'toString', 'hasOwnProperty'];
    for (const name of [
      ...names,
      '',
      ' ',
      'a.b',
      '$where',
      '__defineGetter__',
      'x'.repeat(10_000),
    ]) {
      const answer = await call(endpoint, JSON.stringify({ ...body, [name]: null }));
      expectRefused(endpoint, answer, name.slice(0, 10_000), `unknown ${name.slice(0, 20)}`);
    }
  });

  it('with NUL or half a surrogate pair in any text or name is refused', async () => {
    for (const [what, flaw] of [
      ['NUL', '\\u0000'],
      ['a high surrogate', '\\ud800'],
      ['a low surrogate', '\\udc00x'],
      ['a pair the wrong way', '\\udc00\\ud800'],
    ] as const) {
      for (const [path, value] of valuesOf(body)) {
        const at = path.join('.');
        if (typeof value === 'string') {
          for (const text of [`"${flaw}"`, `"a${flaw}"`, `"${flaw}b"`]) {
            const answer = await call(endpoint, withText(body, path, text));
            expectProblem(answer, 400, 'validation_failed', [at], `${what} in ${at}`);
          }
        } else if (typeof value === 'object' && !Array.isArray(value)) {
          const text = JSON.stringify({ ...value, '\u2603': 1 }).replace('\u2603', `a${flaw}b`);
          const answer = await call(endpoint, withText(body, path, text));
          const [first] = answer.body.errors ?? [];
          expectProblem(answer, 400, 'validation_failed', undefined, `${what} in a name of ${at}`);
          expect(first.path.startsWith(at ? `${at}.a` : 'a'), first.path).toBe(true);
        }
      }
    }
  });

  it('nested 10,000 deep, or 65, in any field is refused', async () => {
    for (const [path] of valuesOf(body)) {
      if (path.length === 0) continue;
      for (const text of [deepObject(10_000), deepArray(10_000), deepObject(65), deepArray(65)]) {
        const answer = await call(endpoint, withText(body, path, text));
        const label = `${path.join('.')} ${text.slice(0, 5)} ${text.length}`;
        expectProblem(answer, 400, 'validation_failed', undefined, label);
        expect(answer.body.errors[0].path.startsWith(path.join('.')), label).toBe(true);
      }
    }
  });

  it('with __proto__ anywhere is refused, and touches no prototype', async () => {
    for (const [path, value] of valuesOf(body)) {
      if (typeof value !== 'object' || Array.isArray(value)) continue;
      for (const planted of ['{"polluted":1}', '[]', 'null', '"x"']) {
        const text = JSON.stringify({ ...value, '\u2603': 1 }).replace(
          '"\u2603":1',
          `"__proto__":${planted}`,
        );
        const answer = await call(endpoint, withText(body, path, text));
        expectProblem(answer, 400, 'validation_failed', [[...path, '__proto__'].join('.')]);
      }
    }
  });

  it('with a number too large for JSON anywhere is refused', async () => {
    for (const [path] of valuesOf(body)) {
      if (path.length === 0) continue;
      for (const text of ['1e999', '-1e999', '9'.repeat(400), '[[1e999]]']) {
        const answer = await call(endpoint, withText(body, path, text));
        expectProblem(answer, 400, 'validation_failed', undefined, `${path.join('.')} = ${text}`);
        expect(answer.body.errors[0].path.startsWith(path.join('.'))).toBe(true);
      }
    }
  });

  it('that is too large is 413, by its content-length and as it streams', async () => {
    const limit = mib * MIB;
    const tooLarge = Buffer.concat([Buffer.from(good), Buffer.alloc(limit, ' ')]);
    expectProblem(await call(endpoint, tooLarge), 413, 'payload_too_large');
    const chunked = await fetch(h.url + endpoint.path, {
      method: endpoint.method,
      headers: { authorization: `Bearer ${h.key}`, 'content-type': 'application/json' },
      body: Readable.from([tooLarge.subarray(0, limit), tooLarge.subarray(limit)]) as never,
      duplex: 'half',
    });
    expectProblem(await readAnswer(chunked), 413, 'payload_too_large');
    // Announced only: the answer does not wait for what never comes.
    const announced = await exchange(h.url, [
      head([
        `${endpoint.method} ${endpoint.path} HTTP/1.1`,
        'Host: x',
        `Authorization: Bearer ${h.key}`,
        'Content-Type: application/json',
        `Content-Length: ${limit + 1}`,
      ]),
    ]);
    expectProblem(announced!, 413, 'payload_too_large');
    // One that just fits is read: it fails on its unknown field, not on its size.
    const fitting = `${good.slice(0, -1)},"x":1`.padEnd(limit - 1, ' ') + '}';
    expectProblem(await call(endpoint, fitting), 400, 'validation_failed', ['x']);
  });
});

/** A bulk call takes the good members beside a bad one: the list that made goes away again. */
async function undoMembers(): Promise<void> {
  await h.database.pool.query(`
    delete from list_members m using recipient_lists l where l.id = m.list_id and l.key = 'made';
    delete from recipient_lists where key = 'made';
    delete from contacts c where not exists (select from list_members m where m.contact_id = c.id);
  `);
}

describe('a text', () => {
  const LINE = 'must be one line without control characters';
  const breaks = [
    '\r',
    '\n',
    '\r\n',
    'a\r\nBcc: x@y.example',
    'a\u0001',
    'a\u007f',
    'a\u0085b',
    'a\u2028b',
  ];
  const lines: [string, string, object, string][] = [
    ['PUT', '/api/senders/news', { email: 'a@b.example' }, 'name'],
    ['PUT', '/api/contacts/a@b.example', {}, 'name'],
    ['PUT', '/api/suppressions/a@b.example', { reason: 'manual' }, 'note'],
    ['PUT', '/api/recipient-lists/made', {}, 'name'],
    ['PUT', '/api/recipient-lists/made', {}, 'type'],
    ['PUT', '/api/recipient-lists/made/members/m', { email: 'a@b.example' }, 'name'],
    ['POST', '/api/recipient-lists/seeded/send', { template_key: 'default_template' }, 'send_key'],
    ['POST', '/api/recipient-lists/seeded/send', { send_key: 's' }, 'template_key'],
  ];

  it('of one line that would break it is refused', async () => {
    for (const [method, path, body, field] of lines) {
      for (const text of breaks) {
        const answer = await h.api(method, path, { ...body, [field]: text });
        const label = `${method} ${path} ${field} ${JSON.stringify(text)}`;
        expectProblem(answer, 400, 'validation_failed', undefined, label);
        expect(answer.body.errors).toContainEqual({ path: field, message: LINE });
      }
    }
  });

  it('that is empty or too long is refused', async () => {
    for (const [method, path, body, field] of lines) {
      for (const text of ['', 'x'.repeat(1_001)]) {
        const answer = await h.api(method, path, { ...body, [field]: text });
        expectProblem(answer, 400, 'validation_failed', undefined, `${path} ${field}`);
        expect(answer.body.errors.map((error: { path: string }) => error.path)).toContain(field);
      }
    }
  });

  it('that goes into a subject or a header and would break it is refused', async () => {
    const contexts: [string, object, object, string][] = [
      [
        'course-newsletter',
        { title: 'T\r\nBcc: x@y.example', body: 'B' },
        {},
        'shared_context.title',
      ],
      [
        'homework-score-published',
        { course_title: 'C', homework_title: 'H\nX' },
        {},
        'shared_context.homework_title',
      ],
      [
        'deadline-reminder',
        { course_title: 'C', task_title: 'T\r', due_at: '2026-01-01' },
        {},
        'shared_context.task_title',
      ],
      [
        'homework-score-published',
        { course_title: 'C', homework_title: 'H' },
        { name: 'A\r\nB' },
        'recipient_context.name',
      ],
    ];
    for (const [template, shared_context, recipient_context, path] of contexts) {
      for (const [action, more] of [
        ['preview', {}],
        ['test-send', { to: 'a@b.example' }],
      ] as const) {
        const request = { shared_context, recipient_context, ...more };
        const answer = await h.api('POST', `/api/templates/${template}/${action}`, request);
        expectProblem(answer, 400, 'validation_failed', [path]);
      }
      const inline = path.startsWith('recipient');
      const answer = await h.api('POST', '/api/recipient-lists/seeded/send', {
        send_key: 's',
        template_key: template,
        shared_context,
        ...(inline && { recipient_context: { m1: recipient_context } }),
      });
      expectProblem(answer, 400, 'validation_failed', [
        path.replace('recipient_context', 'recipient_context.m1'),
      ]);
    }
  });
});

describe('an address', () => {
  const bad = [
    '',
    ' ',
    'x',
    '@',
    '@b.example',
    'a@',
    'a@b',
    'a@@b.example',
    'a b@c.example',
    'a@b.example\r\nBcc: x@y.example',
    'a@b.example\r\n',
    'a@b.example\n',
    '\ta@b.example',
    'a\r\n@b.example',
    'a@b.example, c@d.example',
    'a@b.example;c@d.example',
    'A <a@b.example>',
    '<a@b.example>',
    '"a b"@c.example',
    'a@[127.0.0.1]',
    'a@127.0.0.1',
    'a@b..example',
    'a@-b.example',
    '.a@b.example',
    'a..b@c.example',
    `${'a'.repeat(65)}@b.example`,
    `a@${'b'.repeat(64)}.example`,
    `a@${'b.'.repeat(130)}example`,
    'a'.repeat(100_000),
    'mailto:a@b.example',
    'a@b.example?subject=x',
    'a@b.example%0d%0aBcc:x',
    'a@b_c.example',
  ];

  it('that is none is refused in every body', async () => {
    for (const text of bad) {
      for (const [method, path, body, field] of [
        ['PUT', '/api/senders/news', {}, 'email'],
        ['PUT', '/api/senders/news', { email: 'a@b.example' }, 'reply_to'],
        ['PUT', '/api/recipient-lists/made/members/m', {}, 'email'],
        ['POST', '/api/templates/default_template/test-send', {}, 'to'],
      ] as const) {
        const answer = await h.api(method, path, { ...body, [field]: text });
        expectProblem(answer, 400, 'validation_failed', [field], `${path} ${text.slice(0, 50)}`);
      }
    }
  });

  it('that is none is refused in every path and query', async () => {
    for (const text of bad.filter((one) => one !== '' && one.length < 10_000)) {
      const encoded = encodeURIComponent(text);
      for (const [method, path, body] of [
        ['PUT', `/api/contacts/${encoded}`, {}],
        ['GET', `/api/contacts/${encoded}`],
        ['PUT', `/api/suppressions/${encoded}`, { reason: 'manual' }],
        ['DELETE', `/api/suppressions/${encoded}`],
        ['GET', `/api/messages?email=${encoded}`],
      ] as const) {
        const answer = await h.api(method, path, body);
        expectProblem(answer, 400, 'validation_failed', ['email'], `${method} ${path}`);
      }
    }
  });
});

describe('a path', () => {
  // As raw bytes: fetch would tidy them up first.
  const send = (method: string, path: string, body?: object) => {
    const text = body === undefined ? '' : JSON.stringify(body);
    return exchange(h.url, [
      head([
        `${method} ${path} HTTP/1.1`,
        'Host: x',
        `Authorization: Bearer ${h.key}`,
        'Content-Type: application/json',
        `Content-Length: ${text.length}`,
      ]),
      text,
    ]);
  };
  const keyed: [string, string, string, object?][] = [
    ['PUT', '/api/senders/KEY', 'id', { email: 'a@b.example' }],
    ['DELETE', '/api/senders/KEY', 'id'],
    ['PUT', '/api/recipient-lists/KEY', 'key', {}],
    ['GET', '/api/recipient-lists/KEY', 'key'],
    ['DELETE', '/api/recipient-lists/KEY', 'key'],
    ['GET', '/api/recipient-lists/KEY/members', 'key'],
    ['PUT', '/api/recipient-lists/KEY/members/m', 'key', { email: 'a@b.example' }],
    [
      'PUT',
      '/api/recipient-lists/seeded/members/KEY',
      'source_object_key',
      { email: 'a@b.example' },
    ],
    ['DELETE', '/api/recipient-lists/KEY/members/m', 'key'],
    ['DELETE', '/api/recipient-lists/seeded/members/KEY', 'source_object_key'],
    ['POST', '/api/recipient-lists/KEY/members/bulk-upsert', 'key', { members: [] }],
    ['POST', '/api/recipient-lists/KEY/send', 'key', { send_key: 's', template_key: 't' }],
    ['GET', '/api/templates/KEY', 'key'],
    ['POST', '/api/templates/KEY/preview', 'key', {}],
  ];

  it('with a key that cannot be one is refused, and the key is named', async () => {
    for (const [method, template, name, body] of keyed) {
      for (const key of [
        '%00',
        'a%00',
        '%2F',
        'a%2Fb',
        '%2f..%2f',
        '%0d%0aX:y',
        '%0A',
        '%7F',
        '%C2%85',
        '%E2%80%A8',
        'x'.repeat(256),
        'x'.repeat(10_000),
        '%F0%9F%8E%93'.repeat(256),
      ]) {
        const path = template.replace('KEY', key);
        const answer = await send(method, path, body);
        const label = `${method} ${path.slice(0, 100)}`;
        expectProblem(answer!, 400, 'validation_failed', [name], label);
      }
    }
  });

  it('that is no percent-encoded UTF-8 is refused, and so is such a query', async () => {
    const flaws = [
      '%',
      '%z',
      '%zz',
      'a%',
      '%ff',
      '%C0%AF',
      '%ED%A0%80',
      '%u0041',
      '%F0%9F',
      '\xff',
    ];
    for (const { method, path, body } of ENDPOINTS) {
      for (const flaw of flaws) {
        const answer = await send(method, path.replace(/\/api\/[a-z-]+/, `$&/${flaw}`), body);
        const label = `${method} ${path} with ${flaw}`;
        if (flaw === '\xff') {
          // The URL reads it as U+00FF: another path, and no path of ours.
          expect(answer!.status, label).toBeGreaterThanOrEqual(400);
          expect(answer!.status, label).toBeLessThan(500);
        } else {
          expectProblem(answer!, 400, 'validation_failed', ['path'], label);
        }
        if (flaw === '\xff') continue;
        const inQuery = await send(
          method,
          `${path}${path.includes('?') ? '&' : '?'}x=${flaw}`,
          body,
        );
        expectProblem(inQuery!, 400, 'validation_failed', ['query'], `query of ${label}`);
      }
    }
  });

  it('with a query that is not known, or twice, is refused everywhere', async () => {
    for (const { method, path, body, paged } of ENDPOINTS) {
      const and = path.includes('?') ? '&' : '?';
      for (const [query, name] of [
        ['unknown=1', 'unknown'],
        ['offset=5', 'offset'],
        ['page=2', 'page'],
        ['__proto__=1', '__proto__'],
        ['__proto__[polluted]=1', '__proto__[polluted]'],
        ['constructor=1', 'constructor'],
        ['limit[]=1', 'limit[]'],
        ['LIMIT=1', 'LIMIT'],
        ['=1', ''],
        ['%00=1', '\ufffd'],
        ['x', 'x'],
        ...(paged
          ? [
              ['limit=1&limit=1', 'limit'],
              ['cursor=%00', 'cursor'],
            ]
          : [['limit=1', 'limit']]),
      ] as [string, string][]) {
        const answer = await h.api(method, `${path}${and}${query}`, body);
        expectProblem(answer, 400, 'validation_failed', [name], `${method} ${path}${and}${query}`);
      }
    }
    for (const query of ['status=x', 'status=Active', 'status=', 'status=active&status=removed']) {
      const answer = await h.api('GET', `/api/recipient-lists/seeded/members?${query}`);
      expectProblem(answer, 400, 'validation_failed', ['status'], query);
    }
    for (const query of ['list_key=%00', 'list_key=a&list_key=b']) {
      const answer = await h.api('GET', `/api/sends?${query}`);
      expectProblem(answer, 400, 'validation_failed', ['list_key'], query);
    }
  });

  it('with rubbish for an id, or with dots, is 404', async () => {
    const ids = [
      '0',
      '-1',
      'null',
      '%27%20or%201=1--',
      '%00',
      '019af5d1-0000-7000-8000-00000000000',
      '019af5d1-0000-7000-8000-0000000000000',
      '{019af5d1-0000-7000-8000-000000000000}',
      '019af5d1000070008000000000000000',
      'urn:uuid:019af5d1-0000-7000-8000-000000000000',
      'gggggggg-0000-7000-8000-000000000000',
      '019af5d1-0000-7000-8000-000000000000',
      'x'.repeat(8_000),
    ];
    for (const id of ids) {
      for (const path of [`/api/sends/${id}`, `/api/sends/${id}/messages`, `/api/messages/${id}`]) {
        expectProblem((await send('GET', path))!, 404, 'not_found', undefined, path.slice(0, 99));
      }
    }
    for (const path of [
      '/api/senders/..',
      '/api/senders/%2e%2e',
      '/api/senders/.',
      '/api/recipient-lists/../x',
      '/api/recipient-lists/seeded/members/%2E%2e',
      '/api//senders/x',
      '//api/senders/x',
      '/api/senders/x/',
    ]) {
      const answer = await send('PUT', path, { email: 'a@b.example' });
      expectProblem(answer!, 404, 'not_found', undefined, path);
    }
  });
});

describe('a request that is no proper HTTP', () => {
  const line = 'PUT /api/senders/news HTTP/1.1';
  const auth = () => `Authorization: Bearer ${h.key}`;
  const json = 'Content-Type: application/json';
  const body = '{"email":"a@b.example"}';

  it('gets a 4xx or a closed connection, and the API serves on', async () => {
    const requests: Record<string, (string | Buffer)[]> = {
      garbage: [Buffer.from(Array.from({ length: 512 }, (_, index) => (index * 89) % 256))],
      TLS: [Buffer.from('16030100a5010000a10303', 'hex')],
      'HTTP/0.9': ['GET /api/senders\r\n\r\n'],
      'HTTP/9.9': [head(['GET /api/senders HTTP/9.9', 'Host: x', auth()])],
      'a method in lower case': [head(['put /api/senders/news HTTP/1.1', 'Host: x', auth()])],
      'an unknown method': [head(['FROB /api/senders HTTP/1.1', 'Host: x', auth()])],
      CONNECT: [head(['CONNECT /api/senders HTTP/1.1', 'Host: x', auth()])],
      'a target that is no path': [head(['GET api/senders HTTP/1.1', 'Host: x', auth()])],
      'OPTIONS *': [head(['OPTIONS * HTTP/1.1', 'Host: x', auth()])],
      'no Host': [head([line, auth(), json, `Content-Length: ${body.length}`]), body],
      'a bad Host': [head([line, 'Host: a b/c', auth(), json, 'Content-Length: 0'])],
      'NUL in a header': [head([line, 'Host: x', 'X-A: a\0b', auth(), json, 'Content-Length: 0'])],
      'a header without colon': [head([line, 'Host: x', 'nonsense', auth()])],
      'a header name with a space': [head([line, 'Host: x', 'X A: 1', auth()])],
      'a header name of high bytes': [head([line, 'Host: x', '\xff\xfe: 1', auth()])],
      'a folded header': [head([line, 'Host: x', 'X-A: 1', ' 2', 'Content-Length: -1'])],
      'a bare LF': [`${line}\nHost: x\n${auth()}\n\n`],
      'a negative length': [head([line, 'Host: x', auth(), json, 'Content-Length: -1'])],
      'two lengths': [
        head([line, 'Host: x', auth(), json, 'Content-Length: 23', 'Content-Length: 24']),
        body,
      ],
      'length and chunks': [
        head([line, 'Host: x', auth(), json, 'Content-Length: 23', 'Transfer-Encoding: chunked']),
        body,
      ],
      'a chunk size that is none': [
        head([line, 'Host: x', auth(), json, 'Transfer-Encoding: chunked']),
        'zz\r\n{}\r\n0\r\n\r\n',
      ],
      'an unknown transfer encoding': [
        head([line, 'Host: x', auth(), json, 'Transfer-Encoding: rot13']),
        body,
      ],
      'headers of 100 kB': [head([line, 'Host: x', `X-A: ${'a'.repeat(100_000)}`, auth()])],
      '5,000 headers': [
        head([line, ...Array.from({ length: 5_000 }, (_, n) => `X-${n}: 1`), auth()]),
      ],
      'a path of 100 kB': [head([`GET /api/senders/${'a'.repeat(100_000)} HTTP/1.1`, 'Host: x'])],
    };
    for (const [what, parts] of Object.entries(requests)) {
      const answer = await exchange(h.url, parts);
      if (answer) {
        expect(answer.status, `${what} ${answer.text}`).toBeGreaterThanOrEqual(400);
        expect(answer.status, `${what} ${answer.text}`).toBeLessThan(500);
      }
      expect((await h.api('GET', '/api/senders')).status, what).toBe(200);
    }
  });

  it('or stops in the middle, changes nothing', async () => {
    const unfinished: Record<string, (string | Buffer)[]> = {
      'no request line': ['\r\n\r\n\r\n'],
      'a body that ends early': [
        head([line, 'Host: x', auth(), json, `Content-Length: ${body.length + 1}`]),
        body,
      ],
      'chunks that end early': [
        head([line, 'Host: x', auth(), json, 'Transfer-Encoding: chunked']),
        '17\r\n{"email"',
      ],
    };
    for (const [what, parts] of Object.entries(unfinished)) {
      const answer = await exchange(h.url, parts, { end: true });
      expect(answer?.status ?? 400, what).toBe(400);
    }
  });

  it('or has a key of odd bytes, is 401', async () => {
    for (const value of [
      'Bearer \xff\xfe',
      `Bearer ${h.key}\xa0`,
      `Bearer \x80${h.key}`,
      'Bearer \t',
    ]) {
      const answer = await exchange(h.url, [
        head([line, 'Host: x', `Authorization: ${value}`, json, 'Content-Length: 2']),
        '{}',
      ]);
      expectProblem(answer!, 401, 'unauthenticated');
    }
  });

  it('or a content type of odd bytes, is 415', async () => {
    for (const type of ['\xff', 'application/json\xff', 'application/js\u00f6n', ';;;']) {
      const answer = await exchange(h.url, [
        head([line, 'Host: x', auth(), `Content-Type: ${type}`, `Content-Length: ${body.length}`]),
        body,
      ]);
      expectProblem(answer!, 415, 'unsupported_media_type');
    }
  });
});

describe('what only looks hostile', () => {
  const kept = {
    constructor: { prototype: { polluted: 1 } },
    prototype: { polluted: true },
    toString: 'x',
    hasOwnProperty: null,
    valueOf: [1],
    __defineGetter__: 'x',
    $where: "'; drop table clients; --",
    '': 'empty name',
    'a.b': { 'c/d': 1 },
    '🎓\u200b\ufffd\u202e': '\u0001\u001f\u007f\r\n\t\u2028',
    numbers: [2 ** 53, 1e308, 5e-324, -1.5, 0.1, 9007199254740993, 1e21],
    deep: JSON.parse(deepArray(60)) as unknown,
    long: 'x'.repeat(100_000),
  };

  const taken = 'is taken in free objects, and comes back as it was given';
  mayWrite.add(taken);
  it(taken, async () => {
    const { body: list } = await h.api('PUT', '/api/recipient-lists/made', { metadata: kept });
    expect(list.recipient_list.metadata).toEqual(kept);
    const { body: contact } = await h.api('PUT', '/api/contacts/a@b.example', { attributes: kept });
    expect(contact.contact.attributes).toEqual(kept);
    const { body: member } = await h.api('PUT', '/api/recipient-lists/made/members/m', {
      email: 'a@b.example',
      metadata: kept,
    });
    expect(member.member.metadata).toEqual(kept);
    await h.api('POST', '/api/recipient-lists/made/members/bulk-upsert', {
      members: [{ source_object_key: 'constructor', email: 'c@d.example', metadata: kept }],
    });
    const { body: page } = await h.api('GET', '/api/recipient-lists/made/members');
    expect(page.members.map((one: { metadata: unknown }) => one.metadata)).toEqual([kept, kept]);
    const { status, body: send } = await h.api('POST', '/api/recipient-lists/made/send', {
      send_key: 's',
      template_key: 'default_template',
      shared_context: kept,
      recipient_context: { constructor: kept, m: {} },
      metadata: kept,
    });
    expect(status).toBe(202);
    expect(send.send.metadata).toEqual(kept);
    // -0 and 2^63 are numbers of JSON; they are kept as JavaScript and PostgreSQL know them.
    const raw = await call(
      { method: 'PUT', path: '/api/recipient-lists/made' },
      '{"metadata":{"zero":-0,"big":9223372036854775808,"small":1e-999}}',
    );
    expect(raw.body.recipient_list.metadata).toEqual({ zero: 0, big: 2 ** 63, small: 0 });
  });

  const accepted = 'is every request of the table above, as it stands there';
  mayWrite.add(accepted);
  it(accepted, async () => {
    for (const endpoint of WITH_BODY) {
      const answer = await call(endpoint, JSON.stringify(endpoint.body));
      expect([200, 201, 202], `${nameOf(endpoint)} ${JSON.stringify(answer.body)}`).toContain(
        answer.status,
      );
      expect(answer.body.rejected ?? []).toEqual([]);
    }
    // Also with the type's parameters, in capitals, and behind a byte order mark.
    for (const type of [
      'application/json; charset=utf-8',
      'APPLICATION/JSON',
      'application/json ;x=y',
    ]) {
      const answer = await call(WITH_BODY[0]!, `\ufeff${JSON.stringify(WITH_BODY[0]!.body)}`, {
        'content-type': type,
      });
      expect(answer.status, type).toBe(200);
    }
  });
});
