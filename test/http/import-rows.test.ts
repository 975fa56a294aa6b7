// Reading files to import: what csv-parse and JSON.parse would read, wherever the file is cut into chunks,
// with the lines it stands on.
import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DomainError } from '../../src/errors.ts';
import { parseAddress } from '../../src/address.ts';
import { readRows, type ImportFormat } from '../../src/recipients/import-rows.ts';
import type { GivenRow } from '../../src/recipients/import-table.ts';
import { quickMember } from '../../src/recipients/quick-member.ts';
import { readMember } from '../../src/recipients/read-members.ts';

async function read(
  text: string | Uint8Array,
  format: ImportFormat = 'csv',
  cut = 7,
): Promise<GivenRow[]> {
  const bytes = Buffer.from(text as string);
  async function* chunks() {
    for (let at = 0; at < bytes.length; at += cut) yield bytes.subarray(at, at + cut);
  }
  const rows: GivenRow[] = [];
  for await (const block of readRows(format, chunks())) rows.push(...block);
  return rows;
}

async function flaw(text: string | Uint8Array, format?: ImportFormat, cut?: number) {
  const error: unknown = await read(text, format, cut).catch((one: unknown) => one);
  expect(error).toBeInstanceOf(DomainError);
  return (error as DomainError).errors![0];
}

const HEADER = 'source_object_key,email,note';
const row = (line: number, key: string, email: string, note: string) => ({
  line,
  item: { source_object_key: key, email, metadata: { note } },
});

describe('CSV', () => {
  it('has a header, quotes, line breaks of every kind, and lines as an editor counts them', async () => {
    const file = [
      '\ufeff' + HEADER,
      'k1,a@b.example,plain',
      '',
      'k2,c@d.example,"two\r\nlines, ""quoted"""\r',
      '\r',
      'k3,e@f.example,"\n\n"',
      'k4,g@h.example, spaces \r',
      'k5,i@j.example,',
    ].join('\n');
    for (const cut of [1, 2, 3, 64, 10_000]) {
      expect(await read(file, 'csv', cut)).toEqual([
        row(2, 'k1', 'a@b.example', 'plain'),
        row(4, 'k2', 'c@d.example', 'two\r\nlines, "quoted"'),
        row(7, 'k3', 'e@f.example', '\n\n'),
        row(10, 'k4', 'g@h.example', ' spaces '),
        row(11, 'k5', 'i@j.example', ''),
      ]);
    }
    expect(await read(`${HEADER}\rk1,a@b.example,x\rk2,c@d.example,y`)).toEqual([
      row(2, 'k1', 'a@b.example', 'x'),
      row(3, 'k2', 'c@d.example', 'y'),
    ]);
    expect(await read('')).toEqual([]);
    expect(await read('\n\n')).toEqual([]);
    expect(await read(`${HEADER}\n`)).toEqual([]);
  });

  it('is read as csv-parse reads it, wherever it is cut', async () => {
    const value = fc.string({
      unit: fc.constantFrom('a', 'é', '🎓', ' ', ',', '"', '\n', '\r\n', '\\', '\t'),
      maxLength: 6,
    });
    const written = (text: string) =>
      /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(value, value, value), { maxLength: 8 }),
        fc.constantFrom('\n', '\r\n'),
        fc.boolean(),
        fc.integer({ min: 1, max: 40 }),
        async (records, end, ended, cut) => {
          const lines = [HEADER, ...records.map((values) => values.map(written).join(','))];
          const file = lines.join(end) + (ended ? end : '');
          const found = (await read(file, 'csv', cut)).map((one) => (one as { item: any }).item);
          const expected = parse(file, {
            columns: true,
            skip_empty_lines: true,
            record_delimiter: ['\r\n', '\n', '\r'],
          }) as Record<string, string>[];
          expect(found).toEqual(
            expected.map(({ source_object_key, email, note }) => ({
              source_object_key,
              email,
              metadata: { note },
            })),
          );
        },
      ),
      { numRuns: 500 },
    );
  });

  it('gives metadata from other columns and from a column of JSON; what is empty is not given', async () => {
    const file = [
      'email,metadata,name,source_object_key,consent,cohort',
      'a@b.example,"{""a"":{""b"":[1]},""cohort"":0}",A,k1,pending,7',
      'c@d.example,,,k2,,',
      'e@f.example,[],,k3,,',
      'g@h.example,x',
    ].join('\n');
    expect(await read(file)).toEqual([
      {
        line: 2,
        item: {
          source_object_key: 'k1',
          email: 'a@b.example',
          name: 'A',
          consent: 'pending',
          metadata: { a: { b: [1] }, cohort: '7' },
        },
      },
      {
        line: 3,
        item: { source_object_key: 'k2', email: 'c@d.example', metadata: { cohort: '' } },
      },
      { line: 4, message: 'metadata: must be a JSON object' },
      { line: 5, message: 'member: has 2 columns where the header has 6' },
    ]);
  });

  it('that is malformed is refused, with its line', async () => {
    expect(await flaw('email\n')).toEqual({
      path: 'source_object_key',
      message: 'is a required column, and not in the header',
    });
    expect((await flaw('source_object_key\n'))!.path).toBe('email');
    expect(await flaw('source_object_key,email,x,x\n')).toEqual({
      path: 'x',
      message: 'stands twice in the header',
    });
    expect((await flaw('source_object_key,email,\n'))!.path).toBe('column 3');
    expect((await flaw('source_object_key,email,__proto__\n'))!.path).toBe('__proto__');
    expect(await flaw(`${HEADER}\n\nk,a@b.example,"x\n\n`)).toEqual({
      path: 'line 3',
      message: 'has a quotation mark that is never closed',
    });
    for (const bad of ['a"b', '"a"b']) {
      expect(await flaw(`${HEADER}\nk,a@b.example,${bad}\n`)).toEqual({
        path: 'line 2',
        message: 'has a quotation mark in the middle of a value (RFC 4180)',
      });
    }
    const long = 'x'.repeat(1024 * 1024 + 1);
    for (const text of [long, `"${long}"`]) {
      expect(await flaw(`${HEADER}\nk,a@b.example,${text}\n`, 'csv', 65_536)).toEqual({
        path: 'line 2',
        message: 'is longer than 1 MiB',
      });
    }
    const latin1 = Buffer.from(`${HEADER}\nk,a@b.example,\xe9\n`, 'latin1');
    expect((await flaw(latin1))!.message).toContain('UTF-8');
    expect(
      (await flaw(Buffer.from(`${HEADER}\nk,a@b.example,é`).subarray(0, -1)))!.message,
    ).toContain('UTF-8');
  });
});

describe('NDJSON', () => {
  it('is an object a line; one that is no JSON rejects itself', async () => {
    const file = '\ufeff{"a":1}\r\n\n  \n[]\n{x}\n"\\ud83c\\udf93"';
    for (const cut of [1, 5, 1000]) {
      expect(await read(file, 'ndjson', cut)).toEqual([
        { line: 1, item: { a: 1 } },
        { line: 4, item: [] },
        { line: 5, message: 'member: is not valid JSON' },
        { line: 6, item: '🎓' },
      ]);
    }
    expect((await flaw(`{}\n"${'x'.repeat(1024 * 1024)}"`, 'ndjson', 65_536))!.path).toBe('line 2');
  });
});

describe('the shortcut through the check', () => {
  const text = fc.oneof(
    fc.constantFrom(
      '',
      'k',
      'a/b',
      '.',
      'a\u0000',
      '\ud800',
      '🎓',
      'x'.repeat(256),
      'pending',
      '__proto__',
    ),
    fc.string({ maxLength: 5 }),
  );
  const email = fc.oneof(
    fc.constantFrom(
      'a@b.example',
      'A.B@C.Example',
      'a@xn--bcher-kva.example',
      'a@b',
      'ü@ü.example',
    ),
    fc.emailAddress(),
    text,
  );
  const some = (value: fc.Arbitrary<unknown>) =>
    fc.oneof(
      { arbitrary: value, weight: 9 },
      { arbitrary: fc.constantFrom(null, 1, {}, []), weight: 1 },
    );

  it('gives what the whole check gives, or nothing', () => {
    let taken = 0;
    fc.assert(
      fc.property(
        fc.record(
          {
            source_object_key: some(text),
            email: some(email),
            name: some(text),
            consent: some(fc.constantFrom('subscribed', 'pending', 'x')),
            metadata: some(fc.dictionary(text, some(text))),
            other: text,
          },
          { requiredKeys: ['source_object_key', 'email'] },
        ),
        fc.boolean(),
        ({ other, ...member }, hasOther) => {
          const item = hasOther && other !== undefined ? { ...member, other } : member;
          const quick = quickMember(item);
          if (!quick) return;
          taken += 1;
          expect(readMember(item)).toEqual({ member: quick });
        },
      ),
      { numRuns: 5000 },
    );
    expect(taken).toBeGreaterThan(50);
  });

  it('reads addresses as the long way does, which one with a space before it takes', () => {
    const part = fc.string({
      unit: fc.constantFrom('a', 'Z', '9', '-', '.', '@', '_', '+', 'x', 'n'),
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(
        fc.oneof(
          email,
          fc.tuple(part, part).map(([a, b]) => `${a}@${b}.ex`),
        ),
        (given) => {
          expect(parseAddress(given)).toEqual(parseAddress(` ${given}`));
        },
      ),
      { numRuns: 5000 },
    );
    for (const local of ['a'.repeat(64), 'a'.repeat(65)])
      expect(parseAddress(`${local}@b.ex`)).toEqual(parseAddress(` ${local}@b.ex`));
    for (const label of ['b'.repeat(63), 'b'.repeat(64), 'b--c', 'xn--a', '1', 'b.1'])
      expect(parseAddress(`a@${label}.ex`)).toEqual(parseAddress(` a@${label}.ex`));
    const long = `a@${`${'b'.repeat(60)}.`.repeat(4)}examp`;
    for (const more of ['', 'l', 'le', 'lex', 'lexx', 'lexxx', 'lexxxx'])
      expect(parseAddress(long + more)).toEqual(parseAddress(` ${long}${more}`));
  });
});
