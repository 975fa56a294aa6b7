// multipart/form-data on the wire (RFC 7578, RFC 2046): what is read, and what is refused. Whatever the
// bytes: a clean answer, the same one however they are cut, and no file left behind.
import type { Readable } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DomainError } from '../../src/errors.ts';
import { MultipartParser } from '../../src/http/multipart-parser.ts';
import {
  BOUNDARY,
  bytes,
  digest,
  expectRefused,
  field,
  file,
  form,
  LIMITS,
  part,
  useUploads,
  type Bytes,
} from '../support/multipart-client.ts';

const uploads = useUploads();

const disposition = (more: string) => `Content-Disposition: form-data; ${more}`;

describe('a form is read', () => {
  it('with its fields in order, repeated names repeated, and its files by digest', async () => {
    const pdf = Buffer.from('%PDF-1.7\r\n--not-a-boundary\r\n\0\xff\r\n', 'latin1');
    const { status, body } = await uploads.post(
      form(
        field('to_address', 'a@x.example'),
        file('attachments', 'report.pdf', pdf),
        field('subject', 'Grüße 🎓'),
        field('to_address', 'b@x.example'),
        file('attachments', 'empty.txt', '', 'Text/Plain; charset=utf-16'),
        field('empty', ''),
      ),
    );
    expect(status).toBe(201);
    expect(body.fields).toEqual([
      { name: 'to_address', value: 'a@x.example' },
      { name: 'subject', value: 'Grüße 🎓' },
      { name: 'to_address', value: 'b@x.example' },
      { name: 'empty', value: '' },
    ]);
    const stored = (content: Bytes) => ({ sha256: digest(content), stored: digest(content) });
    const common = { field: 'attachments', mode: '600' };
    expect(body.files).toEqual([
      {
        ...common,
        ...stored(pdf),
        name: 'report.pdf',
        declaredType: 'application/pdf',
        size: pdf.length,
      },
      { ...common, ...stored(''), name: 'empty.txt', declaredType: 'text/plain', size: 0 },
    ]);
  });

  const withName = (more: string, type = 'application/pdf') =>
    part([disposition(`name="f"; ${more}`), ...(type ? [`Content-Type: ${type}`] : [])], 'x');
  const NAMES: [string, Buffer, string | null][] = [
    ['raw UTF-8', file('f', 'Übung 🎓.pdf', 'x'), 'Übung 🎓.pdf'],
    ['no quotes', withName('filename=plain.pdf'), 'plain.pdf'],
    ['escaped quotes', withName(String.raw`filename="a \"b\" c.pdf"`), 'a "b" c.pdf'],
    ['percent-encoded quotes', file('f', 'a %22b%22 %0D%0A.pdf', 'x'), 'a %22b%22 %0D%0A.pdf'],
    ['backslashes', file('f', String.raw`C:\dir\file.pdf`, 'x'), String.raw`C:\dir\file.pdf`],
    ['path parts', file('f', '../../etc/passwd', 'x'), '../../etc/passwd'],
    ['semicolons', file('f', 'a; name="x'.replace('"', ''), 'x'), 'a; name=x'],
    ['RFC 5987', withName("filename*=UTF-8''%C3%BCbung%20%F0%9F%8E%93.pdf"), 'übung 🎓.pdf'],
    ['RFC 5987, a language', withName("filename*=utf-8'de'%C3%BC.pdf"), 'ü.pdf'],
    ['the replacement character', file('f', '\ufffd.pdf', 'x'), '\ufffd.pdf'],
    ['both', withName(`filename="u.pdf"; filename*=UTF-8''%C3%BC.pdf`), 'ü.pdf'],
    ['both, other order', withName(`filename*=UTF-8''%C3%BC.pdf; filename="u.pdf"`), 'ü.pdf'],
    ['an empty name', withName('filename=""'), null],
    [
      'no name',
      part([disposition('name="f"'), 'Content-Type: application/octet-stream'], 'x'),
      null,
    ],
    ['a folded header', part([disposition('name="f";\r\n filename="a.pdf"')], 'x'), 'a.pdf'],
    ['names in capitals', part(['content-DISPOSITION: Form-Data; NAME=f; FileName=a'], 'x'), 'a'],
  ];
  it.each(NAMES)('with the name of a file as sent: %s', async (_, sent, name) => {
    const { status, body } = await uploads.post(form(sent));
    expect(status, JSON.stringify(body)).toBe(201);
    expect(body.fields).toEqual([]);
    expect(body.files).toMatchObject([{ field: 'f', name, size: 1, stored: digest('x') }]);
  });

  it('with the type a file declares', async () => {
    for (const [declared, type] of [
      ['IMAGE/PNG', 'image/png'],
      ['text/html;charset=x', 'text/html'],
      ['', ''],
    ]) {
      const { body } = await uploads.post(form(file('f', 'x', 'x', declared)));
      expect(body.files[0].declaredType, declared).toBe(type);
    }
    const { body } = await uploads.post(form(part([disposition('name="f"; filename="x"')], 'x')));
    expect(body.files[0].declaredType).toBe('');
  });

  const utf8 = 'ü \u{fffd} \ufeff \u{10ffff}\r\nline\n\t\x1b';
  const VALUES: [string, Buffer, string][] = [
    ['nothing said', field('v', utf8), utf8],
    ['charset=utf-8', field('v', utf8, ['Content-Type: text/plain; charset=utf-8']), utf8],
    ['charset="UTF8"', field('v', utf8, ['Content-Type: text/plain; charset="UTF8"']), utf8],
    ['charset=us-ascii', field('v', 'a', ['Content-Type: text/plain;charset=US-ASCII']), 'a'],
    ['application/json', field('v', '{"a":"ü"}', ['Content-Type: application/json']), '{"a":"ü"}'],
    ['8bit', field('v', utf8, ['Content-Transfer-Encoding: 8BIT']), utf8],
    ['a byte order mark', field('v', '\ufeffa'), '\ufeffa'],
    ['parts of the boundary', field('v', `\r\n--${BOUNDARY.slice(0, -1)}\r\n-`), ''],
  ];
  it.each(VALUES)('with the exact text of a value: %s', async (_, sent, value) => {
    const { status, body } = await uploads.post(form(sent));
    expect(status, JSON.stringify(body)).toBe(201);
    const expected = value === '' ? `\r\n--${BOUNDARY.slice(0, -1)}\r\n-` : value;
    expect(body).toEqual({ fields: [{ name: 'v', value: expected }], files: [] });
  });

  it('from fetch', async () => {
    const body = new FormData();
    body.append('subject', 'Grüße\n🎓');
    body.append('attachments', new File(['x'], 'a "b"\r\nü.pdf', { type: 'application/pdf' }));
    body.append('attachments', new Blob(['y']));
    const answer = await fetch(`http://127.0.0.1:${uploads.port}/`, { method: 'POST', body });
    const { fields, files } = (await answer.json()) as { fields: unknown; files: unknown };
    expect(fields).toEqual([{ name: 'subject', value: 'Grüße\r\n🎓' }]);
    expect(files).toMatchObject([
      { name: 'a %22b%22%0D%0Aü.pdf', declaredType: 'application/pdf', stored: digest('x') },
      { name: 'blob', declaredType: 'application/octet-stream', stored: digest('y') },
    ]);
  });

  it('without _charset_, which says of the form that it is UTF-8', async () => {
    const sent = form(field('_charset_', 'UTF-8'), field('v', 'ü'));
    expect((await uploads.post(sent)).body.fields).toEqual([{ name: 'v', value: 'ü' }]);
  });

  it('with odd names of fields', async () => {
    for (const name of ['a b', 'ü', 'a[]', '__proto__', 'constructor', '💥'.repeat(63)]) {
      const { status, body } = await uploads.post(form(field(name, 'v')));
      expect(status, name).toBe(201);
      expect(body.fields, name).toEqual([{ name, value: 'v' }]);
    }
  });

  const one = form(field('v', '1'));
  const FRAMES: [string, Bytes][] = [
    ['without the last line end', one.subarray(0, -2)],
    ['after a preamble', bytes('This is a message\r\nwith a preamble.\r\n', one)],
    ['after an empty line', bytes('\r\n', one)],
    ['before an epilogue', bytes(one, 'epilogue\r\n\r\n')],
    ['before a second form', bytes(one, form(field('w', '2')))],
    ['before the start of a part', bytes(one, `--${BOUNDARY}\r\nbroken`)],
    ['before rubbish after the final boundary', bytes(one.subarray(0, -2), 'rubbish')],
  ];
  it.each(FRAMES)('%s, as one field', async (_, sent) => {
    const answer = await uploads.post(sent);
    expect(answer.body).toEqual({ fields: [{ name: 'v', value: '1' }], files: [] });
  });

  it('where it has no part at all', async () => {
    const { status, body } = await uploads.post(form());
    expect([status, body]).toEqual([201, { fields: [], files: [] }]);
  });

  const BOUNDARIES: [string, string][] = [
    ['quoted', `"${BOUNDARY}"`],
    ['with escapes', String.raw`"bO\uNd4ry"`],
    ['before other parameters', `${BOUNDARY}; charset=utf-8`],
    ['twice, where the first counts', `${BOUNDARY}; boundary=x`],
  ];
  it.each(BOUNDARIES)('with a boundary %s', async (_, boundary) => {
    const answer = await uploads.post(one, `Multipart/Form-Data; boundary=${boundary}`);
    expect(answer.status, JSON.stringify(answer.body)).toBe(201);
  });

  it('with every character RFC 2046 allows in a boundary, and with 70 of them', async () => {
    for (const boundary of [`'()+_,-./:=? x`, '='.repeat(70), '--', '-'.repeat(70), '0']) {
      const sent = bytes(field('v', '1', [], boundary), `--${boundary}--`);
      const answer = await uploads.post(sent, `multipart/form-data; boundary="${boundary}"`);
      expect(answer.status, `${boundary} ${JSON.stringify(answer.body)}`).toBe(201);
    }
  });
});

describe('refused', () => {
  const one = form(field('v', '1'));

  it.each([
    ['none', ''],
    ['JSON', 'application/json'],
    ['another multipart', `multipart/mixed; boundary=${BOUNDARY}`],
    ['urlencoded', 'application/x-www-form-urlencoded'],
    ['rubbish', ';;;'],
    ['odd bytes', 'multipart/form-data\xff; boundary=x'],
    ['a longer type', `multipart/form-data-x; boundary=${BOUNDARY}`],
  ])('as another content type: %s', async (_, type) => {
    expectRefused(await uploads.post(one, type), 415, /multipart\/form-data/);
  });

  it.each([
    ['missing', 'multipart/form-data', /no boundary/],
    ['empty', 'multipart/form-data; boundary=', /no boundary/],
    ['empty, quoted', 'multipart/form-data; boundary=""', /1 to 70/],
    ['of 71 characters', `multipart/form-data; boundary=${'x'.repeat(71)}`, /1 to 70/],
    ['with a last blank', 'multipart/form-data; boundary="x "', /1 to 70/],
    ['with a quote', String.raw`multipart/form-data; boundary="x\"y"`, /1 to 70/],
    ['of odd bytes', 'multipart/form-data; boundary="ü"', /1 to 70/],
    ['of another body', 'multipart/form-data; boundary=other', /has no part/],
    ['in other case', `multipart/form-data; boundary=${BOUNDARY.toLowerCase()}`, /has no part/],
  ])('with a boundary %s', async (_, type, words) => {
    expectRefused(await uploads.post(one, type), 400, words);
  });

  // prettier-ignore
  const parts: [string, Bytes, RegExp, string?][] = [
    ['a part without a name', part([disposition('filename="x.pdf"')]), /Part 1 has no name/],
    ['a field without a name', part(['Content-Disposition: form-data']), /Part 1 has no name/],
    ['an empty field name', field('', 'x'), /Part 1 has no name/],
    ['name*, which is no name', part([disposition("name*=UTF-8''x")]), /Part 1 has no name/],
    ['no header', part([], 'x'), /header of part 1 is malformed/],
    ['no Content-Disposition', part(['Content-Type: text/plain'], 'x'), /Part 1 must have/],
    ['an attachment', part(['Content-Disposition: attachment; name="x"']), /Part 1 must have/],
    ['an open quote', part([disposition('name="x')]), /Part 1 must have/],
    ['rubbish after a name', part([disposition('name="x" y')]), /Part 1 must have/],
    ['raw quotes in a name', file('f', 'a"b.pdf', 'x'), /Part 1 must have/],
    ['Latin-1 in filename*', part([disposition("name=f; filename*=ISO-8859-1''%FC")]), /not UTF-8/, 'f'],
    ['an unknown charset in filename*', part([disposition("name=f; filename*=x-x''%FF")]), /Part 1 must/],
    ['filename* without a charset', part([disposition('name=f; filename*=x')]), /Part 1 must/],
    ['a name twice', part([disposition('name="a"; name="b"')]), /name more than once/, 'a'],
    ['a file name twice', part([disposition('name=a; filename=b; FILENAME=c')]), /filename more/],
    ['two dispositions', part([disposition('name=a'), disposition('name=b')]), /more than once/],
    ['two types', file('f', 'x', 'x', 'a/b\r\nContent-Type: c/d'), /content-type more than once/],
    ['a type that is none', file('f', 'x', 'x', 'pdf'), /malformed Content-Type/, 'f'],
    ['a header without colon', part([disposition('name=a'), 'nonsense']), /header of part 1/],
    ['a header name with a blank', part([disposition('name=a'), 'X A: 1']), /header of part 1/],
    ['NUL in a name', field('a\0b', 'x'), /header of part 1 is malformed/],
    ['NUL in a file name', file('f', 'a\0b', 'x'), /header of part 1 is malformed/],
    ['NUL in a file name, encoded', part([disposition("name=f; filename*=UTF-8''a%00")]), /NUL/, 'f'],
    ['CR LF in a name', part([disposition('name="a\r\nb"')]), /header of part 1 is malformed/],
    ['LF in a name', part([disposition('name="a\nb"')]), /header of part 1 is malformed/],
    ['LF in a file name, encoded', part([disposition("name=f; filename*=utf-8''%0A")]), /break/, 'f'],
    ['a name that is no UTF-8', part([bytes(disposition('name="'), Buffer.of(0xff), '"')]), /not valid UTF-8/],
    ['a file name of no UTF-8', file('f', Buffer.of(0xff), 'x'), /not valid UTF-8/, 'f'],
    ['half a pair in a file name', file('f', Buffer.of(0xed, 0xa0, 0x80), 'x'), /UTF-8/, 'f'],
    ['half a pair, encoded', part([disposition("name=f; filename*=utf-16le''%00%D8")]), /not UTF-8/, 'f'],
    ['no UTF-8, encoded', part([disposition("name=f; filename*=UTF-8''%FF")]), /not UTF-8/, 'f'],
    ['NUL in a value', field('v', 'a\0b'), /NUL/, 'v'],
    ['a value that is no UTF-8', field('v', Buffer.of(0x61, 0xff)), /valid UTF-8/, 'v'],
    ['half a pair in a value', field('v', Buffer.of(0xed, 0xa0, 0x80)), /valid UTF-8/, 'v'],
    ['an overlong form', field('v', Buffer.of(0xc0, 0x80)), /valid UTF-8/, 'v'],
    ['half a character', field('v', Buffer.of(0xc3)), /valid UTF-8/, 'v'],
    ['half of one, said to be UTF-8', field('v', Buffer.of(0xc3), ['Content-Type: text/plain; charset=utf-8']), /valid UTF-8/, 'v'],
    ['Latin-1', field('v', 'x', ['Content-Type: text/plain; charset=iso-8859-1']), /charset/, 'v'],
    ['UTF-16', field('v', 'x', ['Content-Type: text/plain; charset=utf-16le']), /charset/, 'v'],
    ['a charset of base64', field('v', 'x', ['Content-Type: a/b; charset=base64']), /charset/, 'v'],
    ['an unknown charset', field('v', 'x', ['Content-Type: a/b; charset=x']), /charset x/, 'v'],
    ['_charset_ of Latin-1', field('_charset_', 'iso-8859-1'), /UTF-8/, '_charset_'],
    ['base64', file('f', 'x', 'eA==', 'a/b\r\nContent-Transfer-Encoding: base64'), /without/, 'f'],
    ['quoted-printable', field('v', 'x', ['Content-Transfer-Encoding: Quoted-Printable']), /it is/, 'v'],
    ['a nested multipart', field('v', '--i\r\n\r\n--i--', ['Content-Type: multipart/mixed; boundary=i']), /multipart itself/, 'v'],
    ['a nested multipart file', file('f', 'x', '', 'multipart/form-data'), /multipart itself/, 'f'],
    ['a boundary with something behind it', bytes(field('v', '1'), `--${BOUNDARY}x\r\nlost\r\n`), /boundary before part \d/],
    ['a boundary with blanks behind it', field('v', '1').toString().replace('\r\n', ' \t\r\n'), /boundary before part \d/],
    ['a boundary in a header', part([disposition('name=a'), `X: y\r\n--${BOUNDARY}`]), /part 1/],
  ];
  it.each(parts)('for %s', async (_, sent, words, path) => {
    expectRefused(await uploads.post(form(sent)), 400, words, path);
    // Also as the second of three: a good part before does not save it, one after is not lost.
    const second = form(file('g', 'x', 'y'), sent, field('w', '2'));
    expectRefused(
      await uploads.post(second),
      400,
      new RegExp(words.source.replace('1', '\\d')),
      path,
    );
  });

  // prettier-ignore
  const bodies: [string, Bytes, RegExp][] = [
    ['empty', '', /has no part/],
    ['text', 'hello', /has no part/],
    ['with LF for line ends', one.toString().replaceAll('\r\n', '\n'), /has no part/],
    ['with CR for line ends', one.toString().replaceAll('\r\n', '\r'), /has no part/],
    ['of NULs', Buffer.alloc(10_000), /has no part/],
    ['of random bytes', Buffer.from(Array.from({ length: 5_000 }, (_, n) => (n * 89) % 256)), /has no part/],
    ['that ends in a header', one.subarray(0, 30), /ends early|has no part/],
    ['that ends in a value', one.subarray(0, -16), /ends early.*after part 1/],
    ['that ends in a file', file('f', 'x', 'x'.repeat(70_000)), /ends early.*after part 1/],
    ['without the final boundary', field('v', '1'), /ends early.*after part 1/],
  ];
  it.each(bodies)('a body %s', async (_, sent, words) => {
    expectRefused(await uploads.post(sent), 400, words);
  });
});

describe('whatever is sent', () => {
  const whole = form(
    field('subject', 'Grüße'),
    file('attachments', 'ü.pdf', 'x'.repeat(40)),
    field('v', ''),
  );

  it('cut off at any byte, it is refused and nothing is left', async () => {
    for (let length = 0; length < whole.length - 2; length++) {
      expectRefused(await uploads.post(whole.subarray(0, length)), 400, /has no part|ends early/);
    }
    expect(await uploads.leftovers()).toEqual([]);
  });

  it('and cut off by the client leaving, nothing is left either', async () => {
    for (let length = 0; length < whole.length; length += 3) {
      const client = uploads.client();
      client.head(whole.length);
      client.write(whole.subarray(0, length));
      client.socket.end();
      expect((await client.answer())?.status ?? 400).toBe(400);
    }
    expect((await uploads.post(whole)).status).toBe(201);
  });

  const names = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).filter(isQuotable);
  const values = fc
    .string({ unit: 'grapheme', maxLength: 60 })
    .filter((text) => !text.includes('\0'));
  const someParts = fc.array(
    fc.oneof(
      fc.record({ name: names, value: values }),
      fc.record({ name: names, fileName: names, content: fc.uint8Array({ maxLength: 3_000 }) }),
    ),
    { maxLength: 20 },
  );
  const cuts = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 20 });

  it('any form comes back as it was, however it is cut', async () => {
    const boundaries = fc.stringMatching(/^[0-9A-Za-z'()+_,\-./:=?]{20,70}$/);
    const property = fc.asyncProperty(
      someParts,
      boundaries,
      cuts,
      async (parts, boundary, sizes) => {
        const files = parts.filter((one) => 'content' in one).slice(0, LIMITS.files);
        const texts = parts.filter((one) => 'value' in one);
        const kept = parts.filter((one) => 'value' in one || files.includes(one));
        const encoded = bytes(
          ...kept.map((one) =>
            'value' in one
              ? field(one.name, one.value, [], boundary)
              : file(one.name, one.fileName, Buffer.from(one.content), 'a/b', boundary),
          ),
          `--${boundary}--`,
        );
        const client = uploads.client();
        client.head(undefined, `multipart/form-data; boundary="${boundary}"`);
        for (const chunk of cut(encoded, sizes)) client.writeChunk(chunk);
        client.write('0\r\n\r\n');
        const { status, body } = (await client.answer())!;
        client.destroy();
        expect(status, JSON.stringify(body)).toBe(201);
        expect(body.fields).toEqual(texts);
        expect(body.files).toMatchObject(
          files.map((one) => ({
            field: one.name,
            name: one.fileName,
            size: one.content.length,
            sha256: digest(Buffer.from(one.content)),
            stored: digest(Buffer.from(one.content)),
          })),
        );
      },
    );
    await fc.assert(property, { numRuns: 150 });
  });

  it('a broken form is read or refused, however it is cut', async () => {
    const tokens = [
      '\r\n',
      '\n',
      '--',
      `--${BOUNDARY}`,
      `\r\n--${BOUNDARY}`,
      `\r\n--${BOUNDARY}--`,
      '"',
      ';',
      ':',
      ' ',
      '\0',
      'filename="x"',
      'Content-Type: a/b',
      field('w', '2'),
      file('g', 'y', 'z'),
    ];
    const edit = fc.record({
      at: fc.nat(whole.length),
      drop: fc.nat(30),
      put: fc.constantFrom<Bytes>('', ...tokens),
    });
    const edits = fc.array(edit, { minLength: 1, maxLength: 4 });
    const property = fc.asyncProperty(edits, cuts, async (edits, sizes) => {
      let broken = whole;
      for (const { at, drop, put } of edits) {
        broken = bytes(broken.subarray(0, at), put, broken.subarray(at + drop));
      }
      const inOne = await outcome([broken]);
      expect(await outcome(cut(broken, sizes)), broken.toString('latin1')).toEqual(inOne);
      expect(await outcome([...broken].map((byte) => Buffer.of(byte)))).toEqual(inOne);
    });
    await fc.assert(property, { numRuns: 2_000 });
  });
});

/** Fit for a header: no control characters, and what is escaped is another test. */
function isQuotable(text: string): boolean {
  return !/[\0-\x1f\x7f"\\]/u.test(text);
}

function cut(whole: Buffer, sizes: number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let start = 0; start < whole.length;) {
    const end = start + sizes[chunks.length % sizes.length]!;
    chunks.push(whole.subarray(start, end));
    start = end;
  }
  return chunks;
}

/** Of the parser alone, which is told where the cuts are: what is read, or that it was refused. */
async function outcome(chunks: Buffer[]): Promise<unknown> {
  const told: unknown[] = [];
  const files: Promise<unknown>[] = [];
  const errors: Error[] = [];
  const read = async (stream: Readable) => {
    const content: Buffer[] = [];
    for await (const chunk of stream) content.push(chunk as Buffer);
    return bytes(...content).toString('latin1');
  };
  const parser = new MultipartParser(BOUNDARY, LIMITS, {
    field: (name, value) => told.push([name, value.toString('latin1')]),
    file(name, fileName, type, stream) {
      told.push([name, fileName, type]);
      files.push(read(stream).catch(() => {}));
    },
    fail: (error) => errors.push(error as Error),
  });
  for (const chunk of chunks) {
    if (errors.length === 0) await parser.write(chunk);
  }
  if (errors.length === 0) await parser.end().catch((error: Error) => errors.push(error));
  parser.destroy();
  expect(errors.filter((error) => !(error instanceof DomainError))).toEqual([]);
  return errors.length > 0 ? 'refused' : { told, files: await Promise.all(files) };
}
