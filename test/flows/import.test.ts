// Files of members, in and out: all of a file or nothing, at any size, from clients that stop in the
// middle, beside other writers of the same people.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { sweepImports } from '../../src/recipients/import.ts';
import { rootFile } from '../../src/root.ts';
import { allRows, exchange, expectProblem, head, walk } from '../http/tools.ts';
import { caller, someMembers, useHarness, type Answer } from '../support/harness.ts';
import { startApiProcess, watchMemory } from '../support/processes.ts';
import { seededRandom } from '../support/random.ts';
import { until } from '../support/until.ts';

const h = useHarness();
const run = promisify(execFile);

async function importFile(
  body: NonNullable<RequestInit['body']>,
  { type = 'text/csv', list = 'l', url = h.url, ...headers }: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(`${url}/api/recipient-lists/${list}/members/import`, {
    method: 'POST',
    headers: { authorization: `Bearer ${h.key}`, 'content-type': type, ...headers },
    body,
    duplex: 'half',
  });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

async function exportFile(list = 'l'): Promise<string> {
  const response = await fetch(`${h.url}/api/recipient-lists/${list}/members.csv`, {
    headers: { authorization: `Bearer ${h.key}` },
  });
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('text/csv; charset=utf-8');
  return response.text();
}

const membersOf = (list = 'l') =>
  walk(h.api, `/api/recipient-lists/${list}/members`, 'members', 1000);
const csvOf = (count: number, name = 'Member') =>
  `source_object_key,email,name\n${Array.from(
    { length: count },
    (_, n) => `m${n + 1},m${n + 1}@list.example,${name} ${n + 1}\n`,
  ).join('')}`;
const ndjson = (rows: unknown[]) => rows.map((row) => JSON.stringify(row)).join('\n');
const NDJSON = { type: 'application/x-ndjson' };

async function stagedRows(): Promise<number> {
  const { rows } = await h.database.pool.query(
    'select (select count(*) from imports) + (select count(*) from import_rows) as n',
  );
  return Number(rows[0].n);
}

describe('an import', () => {
  it('upserts 20,000 rows like bulk-upsert, and leaves nothing behind', async () => {
    const first = await importFile(csvOf(20_000));
    expect([first.status, first.body]).toEqual([
      200,
      { created: 20_000, updated: 0, unchanged: 0, rejected_count: 0, rejected: [] },
    ]);
    expect((await importFile(csvOf(20_000))).body).toMatchObject({ created: 0, unchanged: 20_000 });
    const half = `${csvOf(10_000, 'New')}n1,n1@list.example,\n`;
    expect((await importFile(half)).body).toMatchObject({ created: 1, updated: 10_000 });
    const { body } = await h.api('GET', '/api/recipient-lists/l');
    expect(body.recipient_list.active_members).toBe(20_001);
    expect(await stagedRows()).toBe(0);
  });

  it('rejects bad rows alone, with their lines, and the second of two', async () => {
    const { status, body } = await importFile(
      ndjson([
        { source_object_key: 'a', email: 'a@list.example', metadata: { n: [1, null] } },
        { source_object_key: 'b', email: 'no address' },
        { source_object_key: 'a', email: 'b@list.example' },
        { source_object_key: 'b', email: 'B@list.example' },
        { source_object_key: 'c', email: 'A@list.example' },
        { source_object_key: 'd', email: 'd@list.example', extra: 1 },
        'text',
        { source_object_key: 'e\u0000', email: 'e@list.example' },
      ]),
      NDJSON,
    );
    expect(status).toBe(200);
    expect(body).toEqual({
      created: 2,
      updated: 0,
      unchanged: 0,
      rejected_count: 6,
      rejected: [
        { line: 2, message: expect.stringMatching(/^email: must be an email address/) },
        { line: 3, message: 'source_object_key: stands already on line 1 of this file' },
        { line: 5, message: 'email: stands already on line 1 of this file' },
        { line: 6, message: 'extra: is not a known field' },
        { line: 7, message: 'member: must be an object' },
        { line: 8, message: 'source_object_key: must not contain the character NUL' },
      ],
    });
    const many = Array.from({ length: 12_000 }, (_, n) => ({
      source_object_key: `k${n % 2}`,
      email: n % 3 === 0 ? 'bad' : `p${n}@list.example`,
    }));
    const { body: mostly } = await importFile(ndjson(many), { ...NDJSON, list: 'many' });
    expect(mostly).toMatchObject({ created: 2, rejected_count: 11_998 });
    expect(mostly.rejected).toHaveLength(1000);
    expect(mostly.rejected.map((one: { line: number }) => one.line)).toEqual(
      Array.from({ length: 1002 }, (_, n) => n + 1).filter((line) => line !== 2 && line !== 3),
    );
  });

  it('does to a list what one bulk-upsert does', async () => {
    const random = seededRandom(20_26);
    const pick = (most: number) => Math.floor(random() * most);
    for (let round = 0; round < 25; round++) {
      const rows = Array.from({ length: 40 }, () => ({
        source_object_key: `k${pick(30)}`,
        email: pick(15) === 0 ? 'bad' : `p${pick(30)}@list.example`,
        ...(pick(3) === 0 && { consent: ['subscribed', 'pending', 'unsubscribed'][pick(3)] }),
        ...(pick(3) === 0 && { name: pick(2) === 0 ? null : `N${pick(9)}` }),
        ...(pick(3) === 0 && { metadata: { n: pick(3) } }),
      }));
      const bulk = await h.api('POST', '/api/recipient-lists/bulk/members/bulk-upsert', {
        members: rows,
      });
      const file = await importFile(ndjson(rows), { ...NDJSON, list: 'file' });
      const { rejected, ...counts } = bulk.body;
      expect(file.body, `round ${round}`).toEqual({
        ...counts,
        rejected_count: rejected.length,
        rejected: rejected.map(({ index, message }: { index: number; message: string }) => ({
          line: index + 1,
          message: message.replace(
            /at index (\d+) of this call/,
            (_, at) => `on line ${Number(at) + 1} of this file`,
          ),
        })),
      });
      const shown = async (list: string) =>
        JSON.stringify(await membersOf(list)).replaceAll(/"(created|updated)_at":"[^"]*"/g, '');
      expect(await shown('file'), `round ${round}`).toEqual(await shown('bulk'));
    }
  });

  it('moves everybody to other keys with their consent, in more than one statement', async () => {
    const count = 50_500;
    const rows = (consent: string, shift: number) =>
      `source_object_key,email,consent\n${Array.from(
        { length: count },
        (_, n) => `k${(n + shift) % count},p${n}@list.example,${consent}\n`,
      ).join('')}`;
    expect((await importFile(rows('pending', 0))).body.created).toBe(count);
    expect((await importFile(rows('', 1))).body).toMatchObject({ created: 0, updated: count });
    const { rows: found } = await h.database.pool.query(`
      select count(*)::integer as members, count(distinct contact_id)::integer as people,
        bool_and(consent = 'pending') as pending
      from list_members where removed_at is null`);
    expect(found[0]).toEqual({ members: count, people: count, pending: true });
  });

  it('of a file that is malformed, or ends early, writes nothing', async () => {
    await importFile(csvOf(3));
    const before = await allRows(h);
    const good = csvOf(12_000, 'Changed');
    for (const bad of ['x,"y\n', 'x,y"z"\n']) {
      expectProblem(await importFile(good + bad), 400, 'validation_failed', ['line 12002']);
    }
    expectProblem(await importFile('email\na@b.example\n'), 400, 'validation_failed', [
      'source_object_key',
    ]);
    const latin1 = Buffer.concat([Buffer.from(good), Buffer.from([0xe9, 0x0a])]);
    expectProblem(await importFile(latin1), 400, 'validation_failed');
    const request = (length: string) =>
      head([
        'POST /api/recipient-lists/l/members/import HTTP/1.1',
        'Host: x',
        `Authorization: Bearer ${h.key}`,
        'Content-Type: text/csv',
        length,
      ]);
    await exchange(h.url, [request(`Content-Length: ${good.length + 1}`), good], { end: true });
    const chunk = `${good.length.toString(16)}\r\n${good}\r\n`;
    await exchange(h.url, [request('Transfer-Encoding: chunked'), chunk], { end: true });
    await until('the staged rows to be gone', async () => (await stagedRows()) === 0);
    expect(await allRows(h)).toEqual(before);
  });

  it('is of CSV or NDJSON, as it is, and makes the list also from nothing', async () => {
    for (const type of [
      'application/json',
      'text/plain',
      'text/csv; charset=latin1',
      'constructor',
    ]) {
      expectProblem(await importFile('x', { type }), 415, 'unsupported_media_type');
    }
    const gzip = await importFile('x', { 'content-encoding': 'gzip' });
    expectProblem(gzip, 415, 'unsupported_media_type');
    expect((await h.api('GET', '/api/recipient-lists/l')).status).toBe(404);
    const none = { created: 0, updated: 0, unchanged: 0, rejected_count: 0, rejected: [] };
    for (const [list, body] of [
      ['empty', ''],
      ['header', 'source_object_key,email\r\n'],
    ] as const) {
      const type = 'Text/CSV; charset=UTF-8';
      expect((await importFile(body, { list, type })).body).toEqual(none);
      expect((await h.api('GET', `/api/recipient-lists/${list}`)).status).toBe(200);
    }
    const huge = await exchange(h.url, [
      head([
        'POST /api/recipient-lists/l/members/import HTTP/1.1',
        'Host: x',
        `Authorization: Bearer ${h.key}`,
        'Content-Type: text/csv',
        `Content-Length: ${1024 ** 3 + 1}`,
      ]),
    ]);
    expectProblem(huge!, 413, 'payload_too_large');
  });

  it('of a killed process is swept; one that lives is not', async () => {
    const { pool, db } = h.database;
    await pool.query(`
      insert into imports (client_id, list_key, touched_at)
      select id, 'l', now() - age from clients, unnest('{1 minute, 1 day}'::interval[]) age;
      insert into import_rows (import_id, line, source_object_key, email, email_given, has_name)
      select id, 2, 'k', 'a@b.example', 'a@b.example', false from imports
      union all select -1, 2, 'k', 'a@b.example', 'a@b.example', false`);
    expect(await sweepImports(db)).toBe(1);
    const { rows } = await pool.query('select import_id from import_rows');
    const { rows: left } = await pool.query('select id from imports');
    expect(rows.map((row) => row.import_id)).toEqual(left.map((row) => row.id));
    expect(left).toHaveLength(1);
  });

  it('whose rows were lost on the way says so, and writes nothing', async () => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const answer = importFile(readable);
    const writer = writable.getWriter();
    await writer.write(Buffer.from(csvOf(15_000)));
    await until('a batch to be staged', async () => (await stagedRows()) > 10_000);
    // As after a crash of the server, which empties unlogged tables.
    await h.database.pool.query('truncate imports, import_rows');
    await writer.close();
    expectProblem(await answer, 503, 'unavailable');
    expect((await h.api('GET', '/api/recipient-lists/l')).status).toBe(404);
    expect(await stagedRows()).toBe(0);
  });

  it('holds no connection while a body is awaited, and only so many run at once', async () => {
    const { pool } = h.database;
    const bodies = Array.from({ length: 3 }, () => new TransformStream<Uint8Array, Uint8Array>());
    const answers = bodies.map(({ readable }, n) => importFile(readable, { list: `slow${n}` }));
    const writers = bodies.map(({ writable }) => writable.getWriter());
    for (const writer of writers) void writer.write(Buffer.from(csvOf(10_500)));
    const running = async () =>
      Number((await pool.query('select count(*) as n from imports')).rows[0].n);
    await until('two batches to be staged', async () => (await stagedRows()) === 20_002);
    expect(await running()).toBe(2); // of one client
    await until('no connection to be in a transaction', () => pool.idleCount === pool.totalCount);
    for (const writer of writers) await writer.close();
    for (const { body } of await Promise.all(answers)) expect(body.created).toBe(10_500);
  });

  it('keeps the memory of the API bounded', async () => {
    const api = await startApiProcess({ DATABASE_URL: h.database.url });
    try {
      const memory = watchMemory(api);
      const row = (n: number) => `k${n % 100},k${n % 100}@list.example,${'x'.repeat(10_000)}\n`;
      async function* chunks() {
        yield Buffer.from('source_object_key,email,note\n');
        for (let at = 0; at < 150; at++)
          yield Buffer.from(Array.from({ length: 100 }, (_, n) => row(at * 100 + n)).join(''));
      }
      const { body } = await importFile(ReadableStream.from(chunks()), { url: api.url });
      expect(body).toMatchObject({ created: 100, rejected_count: 14_900 });
      expect(await memory.peak()).toBeLessThan(450); // idle 200; the body is 150 MB
    } finally {
      await api.stop();
    }
  });
});

describe('an export', () => {
  it('imported again changes nothing, whatever the members hold', async () => {
    const members = [
      { source_object_key: ' k,"1" ', email: 'Ada.L@Bücher.example', name: ' "A", \\N é🎓 ' },
      {
        source_object_key: '\ufeff=1+1',
        email: 'b@list.example',
        name: '-2+3',
        consent: 'pending',
      },
      { source_object_key: '\\', email: 'c@list.example', consent: 'unsubscribed' },
      {
        source_object_key: 'm',
        email: 'd@list.example',
        metadata: { a: { b: [1, 1e21, 1e-7, null, 'x\r\n"y"', '\\'] }, '': 0, email: 'not it' },
      },
      ...someMembers(4500),
    ];
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members });
    await h.api('DELETE', '/api/recipient-lists/l/members/m7');
    // One who has unsubscribed from the list is exported as such, and stays as they were stored.
    await h.database.pool.query(`
      insert into list_unsubscribes (client_id, contact_id, list_id)
      select client_id, contact_id, list_id from list_members where source_object_key = 'm8'`);
    const before = await allRows(h);
    const file = await exportFile();
    expect(file.split('\r\n')).toContain('m8,m8@list.example,Member 8,unsubscribed,{}');
    expect(file).not.toContain('m7@');
    const { body } = await importFile(file);
    expect(body).toEqual({
      created: 0,
      updated: 0,
      unchanged: 4503,
      rejected_count: 0,
      rejected: [],
    });
    expect(await allRows(h)).toEqual(before);
    const copy = await importFile(file, { list: 'copy' });
    expect(copy.body).toMatchObject({ created: 4503, rejected_count: 0 });
    expect(await exportFile('copy')).toBe(file);
  });

  it('of an empty list is the header, and of none 404', async () => {
    await h.api('PUT', '/api/recipient-lists/l', {});
    expect(await exportFile()).toBe('source_object_key,email,name,consent,metadata\r\n');
    const missing = await h.api('GET', '/api/recipient-lists/none/members.csv');
    expectProblem(missing, 404, 'not_found');
  });
});

describe('writers of the same people at once', () => {
  it('never deadlock, and each list stays one', async () => {
    const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 1e6));
    const random = seededRandom(seed);
    const pick = (most: number) => Math.floor(random() * most);
    const lists = ['a', 'b', 'c'];
    const email = () => (pick(2) === 0 ? `p${pick(80)}@list.example` : `P${pick(80)}@list.example`);
    const rows = () =>
      Array.from({ length: 1 + pick(60) }, () => ({
        source_object_key: `k${pick(80)}`,
        email: email(),
        name: `N${pick(5)}`,
      }));
    const one = async (): Promise<Answer> => {
      const list = lists[pick(lists.length)]!;
      const base = `/api/recipient-lists/${list}/members`;
      const members = rows();
      const kind = pick(6);
      if (kind === 0) return h.api('DELETE', `${base}/k${pick(80)}`);
      if (kind === 1) return h.api('PUT', `/api/contacts/${email()}`, { name: `C${pick(5)}` });
      if (kind === 2) return h.api('PUT', `${base}/k${pick(80)}`, { email: email() });
      const answer =
        kind === 3
          ? await importFile(ndjson(members), { ...NDJSON, list })
          : await h.api('POST', `${base}/${kind === 4 ? 'reconcile' : 'bulk-upsert'}`, {
              members,
              ...(kind === 4 && { dry_run: pick(4) === 0 }),
            });
      const { created, updated, unchanged, rejected } = answer.body;
      expect(created + updated + unchanged + rejected.length, `seed ${seed}`).toBe(members.length);
      return answer;
    };
    for (let round = 0; round < 6; round++) {
      const answers = await Promise.all(Array.from({ length: 40 }, one));
      for (const { status, body } of answers)
        expect([200, 201, 204], `seed ${seed}: ${JSON.stringify(body)}`).toContain(status);
    }
    for (const list of lists) {
      const found = await membersOf(list);
      const distinct = (name: string) =>
        new Set(found.map((member: Record<string, string>) => member[name]!.toLowerCase())).size;
      expect(distinct('source_object_key'), `seed ${seed}`).toBe(found.length);
      expect(distinct('email'), `seed ${seed}`).toBe(found.length);
      // In quiet a reconcile leaves exactly what it was given.
      const members = Array.from({ length: 50 }, (_, n) => ({
        source_object_key: `k${n}`,
        email: `p${(n * 7) % 80}@list.example`,
      }));
      const { body } = await h.api('POST', `/api/recipient-lists/${list}/members/reconcile`, {
        members,
      });
      expect(body.created + body.updated + body.unchanged).toBe(50);
      expect(await membersOf(list)).toHaveLength(50);
    }
    expect(await stagedRows()).toBe(0);
  });
});

describe('the command line', () => {
  it('imports and exports files', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'rosterpost-import-'));
    const rosterpost = async (...args: string[]) => {
      const env = { ...process.env, DATABASE_URL: h.database.url };
      const command = ['--import', 'tsx', rootFile('src/cli.ts'), 'list', ...args];
      return run(process.execPath, command, { cwd: rootFile(), env }).then(
        ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
        (error: { code: number; stdout: string; stderr: string }) => error,
      );
    };
    try {
      const of = ['--client', 'acme', '--list', 'l'];
      const file = path.join(folder, 'members.csv');
      await writeFile(file, `${csvOf(3)}m4,nobody,\n`);
      expect(await rosterpost('import', file, ...of)).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(
          /^created 3, updated 0, unchanged 0, rejected 1\nline 5: email: must be an email/,
        ),
      });
      const exported = await rosterpost('export', ...of);
      expect(exported).toMatchObject({ code: 0, stdout: await exportFile() });
      const lines = path.join(folder, 'members.data');
      await writeFile(lines, ndjson(someMembers(3)));
      expect((await rosterpost('import', lines, ...of)).stderr).toContain('--format');
      expect(await rosterpost('import', lines, ...of, '--format', 'ndjson')).toMatchObject({
        code: 0,
        stdout: 'created 0, updated 0, unchanged 3, rejected 0\n',
      });
      await writeFile(file, `${await readFile(file, 'utf8')}m5,"x`);
      expect(await rosterpost('import', file, ...of)).toMatchObject({
        code: 1,
        stdout: '',
        stderr: 'line 6: has a quotation mark that is never closed\n',
      });
      expect((await rosterpost('import', `${file}x.csv`, ...of)).stderr).toContain(
        'cannot be read',
      );
      expect(await rosterpost('import', file, '--client', 'acme')).toMatchObject({ code: 2 });
      expect(await rosterpost('export', '--client', 'acme', '--list', 'none')).toMatchObject({
        code: 1,
      });
      expect(await caller(() => h.url, h.key)('GET', '/api/recipient-lists/l')).toMatchObject({
        body: { recipient_list: { active_members: 3 } },
      });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
