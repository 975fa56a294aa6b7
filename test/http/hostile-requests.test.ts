// Hostile paths, queries, headers and what is no HTTP at all: the answer is a 4xx, never a 5xx, nothing
// is written, and the API serves on.
import { describe, expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { ENDPOINTS } from './endpoints.ts';
import { exchange, expectProblem, head, useUntouched } from './tools.ts';

const h = useHarness();

useUntouched(h);

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
    ['POST', '/api/recipient-lists/KEY/members/reconcile', 'key', { members: [] }],
    ['POST', '/api/recipient-lists/KEY/members/import', 'key'],
    ['GET', '/api/recipient-lists/KEY/members.csv', 'key'],
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
    const flaws = ['%', '%z', '%zz', 'a%', '%ff', '%C0%AF', '%ED%A0%80', '%u0041', '%F0%9F'];
    for (const { method, path, body } of ENDPOINTS) {
      for (const flaw of flaws) {
        const answer = await send(method, path.replace(/\/api\/[a-z-]+/, `$&/${flaw}`), body);
        const label = `${method} ${path} with ${flaw}`;
        expectProblem(answer!, 400, 'validation_failed', ['path'], label);
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
      'a path of high bytes': [head(['GET /api/senders/\xff\xfe HTTP/1.1', 'Host: x', auth()])],
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
      const status = answer?.status ?? 400;
      expect(status >= 400 && status < 500, `${what} → ${status} ${answer?.text}`).toBe(true);
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
