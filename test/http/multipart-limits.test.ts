// How much of a form is read, for how long, and what becomes of the connection: every limit at its edge
// and far beyond, clients that leave or dawdle, and answers that are seen though the body is not read.
import { spawn } from 'node:child_process';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  BOUNDARY,
  bytes,
  expectRefused,
  field,
  file,
  form,
  LIMITS,
  part,
  useUploads,
  type Bytes,
} from '../support/multipart-client.ts';
import { until } from '../support/until.ts';

const MIB = 1024 * 1024;
const disk = vi.hoisted(() => ({ full: false }));

vi.mock('node:fs/promises', async (original) => {
  const fs = await original<typeof import('node:fs/promises')>();
  const writeFile: typeof fs.writeFile = async (path, data, options) => {
    if (!disk.full) return fs.writeFile(path, data, options);
    for await (const _ of data as AsyncIterable<unknown>) {
      throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    }
  };
  return { ...fs, writeFile };
});

const uploads = useUploads();
const some = form(field('v', '1'), file('f', 'x.pdf', 'x'));

afterEach(async () => {
  disk.full = false;
  await until('it serves on', async () => (await uploads.post(some)).status === 201);
});

const times = (count: number, make: (index: number) => Buffer) =>
  bytes(...Array.from({ length: count }, (_, index) => make(index)));

describe('of a form', () => {
  const x = (count: number) => 'x'.repeat(count);
  const headers = (count: number) =>
    part([
      'Content-Disposition: form-data; name="v"',
      ...Array.from({ length: count - 1 }, (_, index) => `X-${index}: y`),
    ]);
  const header = (length: number) => field('v', '', [`X: ${x(length)}`]);
  const { fieldBytes, fields, files, fileBytes, totalFileBytes } = LIMITS;

  // prettier-ignore
  const edges: [string, Bytes, Bytes, RegExp][] = [
    ['bytes of a value', field('val', x(fieldBytes)), field('val', x(fieldBytes + 1)), /field val.* 1000 /],
    ['bytes of a value in UTF-8', field('v', 'ü'.repeat(fieldBytes / 2)), field('v', `${'ü'.repeat(fieldBytes / 2)}x`), /field v/],
    ['bytes of all text', times(2, (n) => field(`${n}`, x(999))), times(2, (n) => field(`${n}`, x(n + 999))), /text.* 2000 /],
    ['text fields', times(fields, () => field('v', '')), times(fields + 1, () => field('v', '')), /20 text fields/],
    ['files', times(files, () => file('f', 'x', '')), times(files + 1, () => file('f', 'x', '')), /3 files/],
    ['bytes of a file', file('f', 'big.pdf', x(fileBytes)), file('f', 'big.pdf', x(fileBytes + 1)), /big\.pdf.* 100000 /],
    ['bytes of a file without a name', file('f', '', x(fileBytes)), file('f', '', x(fileBytes + 1)), /file of f/],
    ['bytes of all files', times(2, () => file('f', 'x', x(totalFileBytes / 2))), times(2, (n) => file('f', 'x', x(totalFileBytes / 2 + n))), /files together.* 150000 /],
    ['bytes of a field name', field(x(255), ''), field(x(256), ''), /name of part 1.* 255 /],
    ['bytes of the name of a file\'s field', file('ü'.repeat(127), 'x', ''), file('ü'.repeat(128), 'x', ''), /name of part 1/],
    ['header fields', headers(20), headers(21), /Part 1.* 20 header/],
    ['bytes of a header', header(16_300), header(16_400), /header of part 1.* 16384 /],
  ];
  it.each(edges)('%s: the most is read, one more is too large', async (_, most, more, words) => {
    const answer = await uploads.post(form(most));
    expect(answer.status, JSON.stringify(answer.body)).toBe(201);
    expectRefused(await uploads.post(form(more)), 413, words);
    expectRefused(await uploads.post(form(field('before', ''), more)), 413, /./);
  });

  const cd = 'Content-Disposition: form-data; name="long"';
  const huge: [string, Bytes, RegExp][] = [
    ['a value', bytes(`--${BOUNDARY}\r\n${cd}\r\n\r\n`), /field long/],
    ['a file', bytes(`--${BOUNDARY}\r\n${cd}; filename="x.pdf"\r\n\r\n`), /file x\.pdf/],
    ['a header', bytes(`--${BOUNDARY}\r\n${cd}; filename="`), /header of part 1/],
    ['a header name', bytes(`--${BOUNDARY}\r\n`), /header of part 1/],
    ['a preamble', 'Dear all,\r\n', /before the first part/],
    ['an epilogue', some, /after the parts/],
    ['what follows a boundary', bytes(field('v', '1'), `--${BOUNDARY}`), /between and after/],
    ['what follows a file', bytes(file('f', 'x', 'x'), `--${BOUNDARY}`), /between and after/],
  ];
  it.each(huge)('%s without end is refused before long', async (_, begin, words) => {
    const client = uploads.client();
    client.head(undefined);
    client.writeChunk(begin);
    const more = Buffer.alloc(50_000, 'x');
    for (let sent = 0; sent < 500_000; sent += more.length) client.writeChunk(more);
    client.write('0\r\n\r\n');
    expectRefused((await client.answer())!, 413, words);
  });

  it('10,000 parts are refused, of whatever kind', async () => {
    for (const one of [
      field('v', ''),
      file('f', 'x', ''),
      part(['Content-Disposition: none']),
      bytes(`--${BOUNDARY}\r\n`),
      bytes(`--${BOUNDARY}\n`),
    ]) {
      const { status } = await uploads.post(form(times(10_000, () => one)));
      expect([400, 413], one.toString()).toContain(status);
    }
  });

  it('a declared length that no form can have is refused, whatever follows', async () => {
    for (const sent of [some, Buffer.alloc(2 * MIB), bytes()]) {
      const client = uploads.client();
      client.head(10 * 1024 * MIB);
      client.write(sent);
      expectRefused((await client.answer())!, 413, /body must be at most \d+ bytes/);
    }
  });

  it('a value sent byte by byte is read like any other', async () => {
    const client = uploads.client();
    client.head(undefined);
    const sent = form(field('v', 'ü'.repeat(500)), file('f', 'x', 'y'.repeat(5_000)));
    for (const byte of sent) client.writeChunk(Buffer.of(byte));
    client.write('0\r\n\r\n');
    const { status, body } = (await client.answer())!;
    expect([status, body.fields[0].value, body.files[0].size]).toEqual([
      201,
      'ü'.repeat(500),
      5_000,
    ]);
  });
});

describe('a client', () => {
  let used = 0;
  const begun = bytes(field('v', '1'), file('f', 'x.pdf', 'x'.repeat(90_000))).subarray(0, -2);

  it('that leaves midway leaves nothing', async () => {
    uploads.whileUsed = async () => void (used += 1);
    for (const leave of ['end', 'destroy', 'resetAndDestroy'] as const) {
      for (const framed of [true, false]) {
        const client = uploads.client();
        client.head(framed ? begun.length + 1_000 : undefined);
        if (framed) client.write(begun);
        else client.writeChunk(begun);
        await until('a file is begun', async () => (await uploads.leftovers()).length > 0);
        client.socket[leave]();
        await until('it is gone', async () => (await uploads.leftovers()).length === 0);
      }
    }
    expect(used).toBe(0);
  });

  it('that leaves while its form is used does not end the work', async () => {
    let finished = false;
    let sizes: number[] = [];
    uploads.whileUsed = async ({ files }) => {
      sizes = files.map(({ size }) => size);
      client.destroy();
      await until('the server noticed', () => uploads.sockets[0]!.destroyed);
      expect(await uploads.leftovers()).toHaveLength(1);
      finished = true;
    };
    const client = uploads.client();
    client.head(some.length);
    client.write(some);
    await until('the work is done', () => finished);
    expect(sizes).toEqual([1]);
  });

  it('whose form cannot be used gets that error, and the files are gone', async () => {
    uploads.whileUsed = async () => {
      throw new Error('the database is gone');
    };
    expect((await uploads.post(some)).status).toBe(500);
    uploads.whileUsed = async () => {};
  });

  it('whose declared length is less than the form is refused', async () => {
    const client = uploads.client();
    client.head(some.length - 20);
    client.write(some);
    // By us or by Node, for which the rest is the next request.
    expect((await client.answer())?.status ?? 400).toBe(400);
  });

  it('whose chunks are broken is refused', async () => {
    const client = uploads.client();
    client.head(undefined);
    client.writeChunk(begun);
    client.write('zz\r\n');
    expect((await client.answer())?.status ?? 400).toBe(400);
  });

  it('gets 503 where the disk is full, and may try again', async () => {
    disk.full = true;
    const sent = form(file('f', 'x', 'x'.repeat(90_000)), file('f', 'x', 'x'), field('v', '1'));
    const answer = await uploads.post(sent);
    expectRefused(answer, 503, /no room/);
    disk.full = false;
    expect((await uploads.post(sent)).status).toBe(201);
  });
});

describe('a connection', () => {
  const large = file('f', 'large.pdf', Buffer.alloc(20 * MIB));

  it('serves the next request after a form, and after one that was refused', async () => {
    const client = uploads.client();
    const bodies: [Bytes, number][] = [
      [some, 201],
      [form(field('v', 'x'.repeat(2_000))), 413],
      [some, 201],
      [form(field('v', '\0'), file('f', 'x', Buffer.alloc(100_000))), 400],
      [form(part(['Content-Disposition: none']), large), 413],
      [form(part(['Content-Disposition: none'])), 400],
      [some.subarray(0, -10), 400],
      [some, 201],
    ];
    for (const [body, status] of bodies) {
      client.head(body.length);
      client.write(body);
      expect((await client.answer())!.status).toBe(status);
    }
    client.head(some.length, 'text/plain');
    client.write(bytes(some, 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n'));
    expect((await client.answer())!.status).toBe(415);
    expect((await client.answer())!.status).toBe(415);
    expect(uploads.sockets).toHaveLength(1);
  });

  it('lets a client that sends all of a refused body first see the answer', async () => {
    for (const framed of [true, false]) {
      const client = uploads.client();
      client.head(framed ? large.length : undefined);
      client.socket.pause();
      if (framed) client.write(large);
      else
        for (let at = 0; at < large.length; at += MIB)
          client.writeChunk(large.subarray(at, at + MIB));
      if (!framed) client.write('0\r\n\r\n');
      await new Promise((resolve) => client.socket.write('', resolve));
      client.socket.resume();
      expectRefused((await client.answer())!, 413, framed ? /body/ : /large\.pdf/);
    }
  });

  it('answers curl, whatever curl sends', async () => {
    const post = async (body: Buffer, ...more: string[]) => {
      const type = `content-type: multipart/form-data; boundary=${BOUNDARY}`;
      const url = `http://127.0.0.1:${uploads.port}/`;
      const out = ['-s', '-o', '/dev/null', '-w', '%{http_code} %{errormsg}'];
      const curl = spawn('curl', [...out, '-H', type, ...more, '--data-binary', '@-', url]);
      let told = '';
      curl.stdout.on('data', (chunk) => (told += chunk));
      curl.stdin.on('error', () => {});
      curl.stdin.end(body);
      await new Promise((resolve) => curl.once('close', resolve));
      return told.trim();
    };
    expect(await post(some)).toBe('201');
    for (const more of [[], ['-H', 'expect:'], ['-H', 'transfer-encoding: chunked']]) {
      expect(await post(form(large), ...more), more.join(' ')).toBe('413');
    }
  });
});

describe('a body that is slow', () => {
  const slow = useUploads({ timeoutMs: 300 });

  it('is refused when its time is up, and the connection is closed', async () => {
    for (const begin of [bytes(), file('f', 'x', 'x'.repeat(70_000)).subarray(0, -9)]) {
      const client = slow.client();
      client.head(100_000);
      client.write(begin);
      const dripping = setInterval(() => client.write('x'), 20);
      expectRefused((await client.answer())!, 400, /took too long.* 0\.3 seconds/);
      await client.closed;
      clearInterval(dripping);
      expect(await slow.leftovers()).toEqual([]);
    }
  });

  it('is read where it makes it in time, however long its form is used', async () => {
    const begun = Date.now();
    slow.whileUsed = async () =>
      void (await until('its time to be up', () => Date.now() - begun > 400));
    expect((await slow.post(some)).status).toBe(201);
  });
});

describe('a body that trickles', () => {
  const silent = useUploads({ silenceMs: 200 });
  const dripping = useUploads({ silenceMs: 200, leastBytesPerSecond: 1_000_000 });

  it('is refused where nothing comes for too long', async () => {
    const client = silent.client();
    client.head(100_000);
    client.write(file('f', 'x', 'x'.repeat(1000)));
    expectRefused((await client.answer())!, 400, /too slowly.* 0\.2 seconds/);
  });

  it('is refused where it brings too little, though it never pauses', async () => {
    const client = dripping.client();
    client.head(300_000);
    const drip = setInterval(() => client.write('x'), 20);
    expectRefused((await client.answer())!, 400, /too slowly: at least 1000000 bytes/);
    clearInterval(drip);
  });
});
