// Hostile bodies at every endpoint that reads one: the answer is a 4xx problem that names the field,
// never a 5xx, and nothing is written. Hostile requests: hostile-requests.test.ts. What only looks
// hostile: faithful.test.ts.
import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { useHarness, type Answer } from '../support/harness.ts';
import { ENDPOINTS, type Endpoint } from './endpoints.ts';
import { exchange, expectProblem, head, useUntouched } from './tools.ts';

const h = useHarness();

const MIB = 1024 * 1024;
const WITH_BODY = ENDPOINTS.filter((endpoint) => endpoint.body);
const nameOf = ({ method, path }: Endpoint) => `${method} ${path}`;
const named = (endpoints: Endpoint[]) =>
  endpoints.map((endpoint) => [nameOf(endpoint), endpoint] as const);

useUntouched(h);

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

/** What an answer names as wrong: fields of the request, or members a bulk call did not take. */
function namedPaths({ status, body }: Answer): string[] {
  if (status !== 200) return body.errors.map((error: { path: string }) => error.path);
  return body.rejected.map(({ index, message }: { index: number; message: string }) =>
    `members.${index}.${message.split(': ')[0]}`.replace(/\.member$/, ''),
  );
}

/** Refused with this path, or one below it, named; a bad member of a bulk call by itself. */
function expectRefused(endpoint: Endpoint, answer: Answer, path: string, what: string): void {
  const label = `${nameOf(endpoint)} ${what.slice(0, 100)} → ${JSON.stringify(answer.body)}`;
  const isMember = endpoint.items !== undefined && path.startsWith('members.');
  expect(answer.status, label).toBe(isMember ? 200 : 400);
  if (!isMember) expectProblem(answer, 400, 'validation_failed');
  const found = namedPaths(answer).some((one) => one === path || one.startsWith(`${path}.`));
  expect(found, label).toBe(true);
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

const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** JSON strings with the flaw alone, at the end and at the start; none where `value` is no text. */
function textsWith(value: unknown, flaw: string): string[] {
  return typeof value === 'string' ? [`"${flaw}"`, `"a${flaw}"`, `"${flaw}b"`] : [];
}

const deepObject = (depth: number) => '{"a":'.repeat(depth) + '1' + '}'.repeat(depth);
const deepArray = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);

describe.each(named(WITH_BODY))('%s: a body', (_name, endpoint) => {
  const {
    body,
    free = [],
    items,
    mib = 1,
    optional = false,
  } = endpoint as Endpoint & { body: object };
  const checked = [...valuesOf(body)].filter(([[first]]) => items === undefined || first !== items);
  const good = JSON.stringify(body);

  it('that is no JSON object is refused', async () => {
    const json = good === '{}' ? '{"a":"b"}' : good;
    const bodies: Record<string, string | Buffer> = {
      ...(!optional && { empty: '' }),
      'white space': ' \n',
      truncated: json.slice(0, -1),
      'truncated in a string': '{"a',
      'one brace': '{',
      'two objects': json + json,
      'text after it': `${json}x`,
      'a trailing comma': `${json.slice(0, -1)},}`,
      'single quotes': json.replaceAll('"', "'"),
      'a comment': `/* */${json}`,
      NaN: '{"a":NaN}',
      'a form': 'email=a@b.example',
      'a raw NUL': `\0${json}`,
      'a raw line break in a string': json.replace('":"', '":"\n'),
      'a bad escape': json.replace('":"', '":"\\x'),
      'half an escape': json.replace('":"', '":"\\u12'),
      'bytes that are no UTF-8': Buffer.from([0xff, 0xfe, 0xfd]),
      'UTF-16': Buffer.from(`\ufeff${json}`, 'utf16le'),
      'a gzip header': Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0]),
      null: 'null',
      true: 'true',
      'a number': '7',
      'a string': '"text"',
      'an array': '[]',
      'the body in an array': `[${json}]`,
      'the body as a string': JSON.stringify(json),
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
        json.slice(0, json.indexOf('":"') + 3),
        json.slice(json.indexOf('":"') + 3),
      ];
      const answer = await call(
        endpoint,
        Buffer.concat([Buffer.from(start), Buffer.from(bytes), Buffer.from(end)]),
      );
      expectProblem(answer, 400, 'validation_failed', undefined, `bytes ${bytes.join()}`);
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
        expectRefused(endpoint, answer, at, `${at} = ${JSON.stringify(bad)}`);
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
      expectRefused(endpoint, answer, name, `unknown field ${name}`);
    }
  });

  it('with NUL or half a surrogate pair in any text or name is refused', async () => {
    for (const [what, flaw] of [
      ['NUL', '\\u0000'],
      ['a high surrogate', '\\ud800'],
      ['a low surrogate', '\\udc00x'],
      ['a pair the wrong way', '\\udc00\\ud800'],
    ] as const) {
      for (const [path, value] of checked) {
        const at = path.join('.');
        const label = `${what} in ${at}`;
        for (const text of textsWith(value, flaw)) {
          const answer = await call(endpoint, withText(body, path, text));
          expectProblem(answer, 400, 'validation_failed', [at], label);
        }
        if (!isObject(value)) continue;
        const odd = JSON.stringify({ ...value, '\u2603': 1 }).replace('\u2603', `a${flaw}b`);
        const answer = await call(endpoint, withText(body, path, odd));
        expectProblem(answer, 400, 'validation_failed', undefined, `${label}, in a name`);
        expect(answer.body.errors[0].path, label).toMatch(new RegExp(`^${at && `${at}\\.`}a`));
      }
    }
  });

  it('nested 10,000 deep, or 65, in any field is refused', async () => {
    for (const [path] of checked) {
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
    for (const [path, value] of checked) {
      if (!isObject(value)) continue;
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
    for (const [path] of checked) {
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
    const unknown = JSON.stringify({ ...body, x: 1 });
    const fitting = `${unknown.slice(0, -1).padEnd(limit - 1, ' ')}}`;
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
