// What the tests of this folder share: reading an answer as a problem, walking pages, looking at
// everything the database holds, and raw sockets for what fetch refuses to send.
import { connect as openSocket } from 'node:net';
import { afterEach, beforeEach, expect } from 'vitest';
import { someMembers, type Answer, type Api, type Harness } from '../support/harness.ts';

const TIMESTAMP = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/;

/** An RFC 9457 problem with this status, and a field error for each of `paths`. */
export function expectProblem(
  answer: Pick<Answer, 'status' | 'body' | 'headers'>,
  status: number,
  code: string,
  paths?: string[],
  label = '',
): void {
  const what = `${label} → ${answer.status} ${JSON.stringify(answer.body)?.slice(0, 300)}`;
  expect(answer.status, what).toBe(status);
  expect(answer.headers.get('content-type'), what).toBe('application/problem+json');
  expect(answer.body, what).toEqual({
    type: `urn:rosterpost:problem:${code}`,
    title: expect.stringMatching(/./),
    status,
    code,
    detail: expect.stringMatching(/./),
    ...(answer.body.errors && { errors: expect.any(Array) }),
  });
  for (const error of answer.body.errors ?? []) {
    expect(error, what).toEqual({ path: expect.any(String), message: expect.stringMatching(/./) });
  }
  if (paths) {
    const named = (answer.body.errors ?? []).map((error: { path: string }) => error.path);
    expect(named.sort(), what).toEqual([...paths].sort());
  }
}

/** Every `*_at` of the value, at any depth, is null or RFC 3339 in UTC; there is at least one. */
export function expectTimestamps(value: unknown): void {
  const seen: unknown[] = [];
  JSON.stringify(value, (name, below: unknown) => {
    if (name.endsWith('_at') && below !== null) seen.push(below);
    return below;
  });
  expect(seen.length).toBeGreaterThan(0);
  for (const one of seen) expect(one).toMatch(TIMESTAMP);
}

/** All rows of a paged list, page by page; every page but the last is full and has a cursor. */
export async function walk(api: Api, path: string, plural: string, limit: number): Promise<any[]> {
  const rows: any[] = [];
  let cursor: string | null = null;
  do {
    const query: string = `limit=${limit}${cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`}`;
    const { status, body }: Answer = await api(
      'GET',
      `${path}${path.includes('?') ? '&' : '?'}${query}`,
    );
    expect(status).toBe(200);
    expect(Object.keys(body).sort()).toEqual(['next_cursor', plural].sort());
    if (body.next_cursor !== null) expect(body[plural]).toHaveLength(limit);
    rows.push(...body[plural]);
    cursor = body.next_cursor;
    expect(rows.length, 'walks in a circle').toBeLessThan(5_000);
  } while (cursor !== null);
  return rows;
}

/** Everything stored, table by table, to compare before and after a call that must write nothing. */
export async function allRows({ database }: Harness): Promise<Record<string, unknown>> {
  const { rows: tables } = await database.pool.query<{ name: string }>(`
    select format('%I.%I', table_schema, table_name) as name from information_schema.tables
    where table_type = 'BASE TABLE' and table_schema in ('public', 'graphile_worker')
    order by 1`);
  const parts = tables.map(
    ({ name }) =>
      `select '${name}' as name, count(*)::integer as rows,
        md5(string_agg(t::text, chr(10) order by t::text)) as digest from ${name} t`,
  );
  const { rows } = await database.pool.query(parts.join(' union all '));
  return Object.fromEntries(rows.map(({ name, ...state }) => [name, state]));
}

/**
 * Call after useHarness. Before each test the list `seeded` has two members; after it everything stored
 * is as it was, no prototype has changed, and the API serves on.
 */
export function useUntouched(h: Harness): void {
  let before: Record<string, unknown>;
  beforeEach(async () => {
    await h.api('POST', '/api/recipient-lists/seeded/members/bulk-upsert', {
      members: someMembers(2),
    });
    before = await allRows(h);
  });
  afterEach(async () => {
    expect(await allRows(h)).toEqual(before);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect((await h.api('GET', '/api/senders')).status).toBe(200);
  });
}

export interface RawAnswer {
  status: number;
  headers: Headers;
  body: any;
  text: string;
}

/**
 * Writes the bytes to a new connection and reads the first answer; undefined where the server closes
 * without one. `end` ends our side after the bytes, for requests that stop in the middle: to Node
 * that is a client that went away.
 */
export function exchange(
  url: string,
  parts: (string | Buffer)[],
  { end = false } = {},
): Promise<RawAnswer | undefined> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const received: Buffer[] = [];
    const socket = openSocket({ host: hostname, port: Number(port), allowHalfOpen: true });
    const finish = () => {
      socket.destroy();
      resolve(parseAnswer(Buffer.concat(received)));
    };
    socket.setTimeout(10_000, () => {
      socket.destroy();
      reject(new Error('no answer within 10 s'));
    });
    socket.on('data', (part) => {
      received.push(part);
      if (isComplete(Buffer.concat(received))) finish();
    });
    socket.on('end', finish);
    // The server may close while we still write: what it said before counts.
    socket.on('error', finish);
    for (const part of parts) socket.write(part);
    if (end) socket.end();
  });
}

/** A request line and headers, as bytes: `latin1` keeps every byte as it is. */
export function head(lines: string[]): Buffer {
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}

function isComplete(bytes: Buffer): boolean {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return false;
  const headers = bytes.subarray(0, end).toString('latin1');
  if (/^transfer-encoding: chunked$/im.test(headers)) return bytes.subarray(-5).equals(LAST_CHUNK);
  const length = /^content-length: *(\d+)/im.exec(headers)?.[1];
  return length !== undefined && bytes.length >= end + 4 + Number(length);
}

const LAST_CHUNK = Buffer.from('0\r\n\r\n');

function parseAnswer(bytes: Buffer): RawAnswer | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const [statusLine, ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n');
  const headers = new Headers(
    lines.map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1).trim()] as [string, string];
    }),
  );
  const text = bytes.subarray(end + 4).toString('utf8');
  const json = headers.get('content-type')?.includes('json') && text !== '';
  return {
    status: Number(statusLine!.split(' ')[1]),
    headers,
    text,
    body: json ? JSON.parse(text) : undefined,
  };
}
