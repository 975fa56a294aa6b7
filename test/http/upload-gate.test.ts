// How many uploads are read at once, what waiting ones cost, and what becomes of their folders.
import { mkdir, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { sweepSpool, UploadGate } from '../../src/http/upload-gate.ts';
import {
  BOUNDARY,
  bytes,
  digest,
  expectRefused,
  field,
  file,
  form,
  useUploads,
  type RawClient,
} from '../support/multipart-client.ts';
import { until } from '../support/until.ts';

const MIB = 1024 * 1024;
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const LARGE = { fileBytes: 6 * MIB, totalFileBytes: 6 * MIB };
/** What Node reads of a connection before it stops: two reads of 64 KiB, and the head. */
const READ_AHEAD = 160 * 1024;

describe('with one place', () => {
  const uploads = useUploads(LARGE, 1);
  const content = Buffer.alloc(5 * MIB, 'abc');
  const large = form(file('f', 'x.pdf', content));

  /** One upload holds the place until `release`. */
  async function occupy(): Promise<{ first: RawClient; release: () => void }> {
    const { promise, resolve: release } = Promise.withResolvers<void>();
    let inside = false;
    uploads.whileUsed = () => {
      inside = true;
      return promise;
    };
    const first = send(form(field('first', '')));
    await until('the place is taken', () => inside);
    return { first, release };
  }

  function send(body: Buffer): RawClient {
    const client = uploads.client();
    client.head(body.length);
    client.write(body);
    return client;
  }

  it('the rest wait unread, and are read one after the other', async () => {
    const { first, release } = await occupy();
    const waiting: RawClient[] = [];
    for (let count = 1; count <= 5; count++) {
      waiting.push(send(large));
      await until('it waits', () => uploads.gate.waiting === count);
    }
    const reads = () => uploads.sockets.slice(1).map((socket) => socket.bytesRead);
    await until('the clients are held back', () =>
      waiting.every(({ socket }) => socket.writableLength > 0),
    );
    for (const read of reads()) expect(read).toBeLessThan(READ_AHEAD);
    expect(await uploads.leftovers(), 'one folder').toHaveLength(1);
    release();
    expect((await first.answer())!.status).toBe(201);
    for (const client of waiting) {
      const { status, body } = (await client.answer())!;
      expect([status, body.files[0].stored]).toEqual([201, digest(content)]);
    }
    expect(uploads.gate.waiting).toBe(0);
  });

  it('they are read in the order they came', async () => {
    const { release } = await occupy();
    const order: string[] = [];
    for (const name of ['a', 'b', 'c', 'd']) {
      const before = uploads.gate.waiting;
      send(form(field(name, '')));
      await until('it waits', () => uploads.gate.waiting > before);
    }
    uploads.whileUsed = async ({ fields }) => void order.push(fields[0]!.name);
    release();
    await until('all are read', () => order.length === 4);
    expect(order).toEqual(['a', 'b', 'c', 'd']);
  });

  it('a client that leaves leaves the line', async () => {
    const { first, release } = await occupy();
    const leaving = [send(form(field('v', ''))), send(form(field('v', '')))];
    const staying = send(form(field('stays', '')));
    await until('they wait', () => uploads.gate.waiting === 3);
    leaving[0]!.destroy();
    leaving[1]!.socket.resetAndDestroy();
    await until('they left', () => uploads.gate.waiting === 1);
    release();
    expect((await first.answer())!.status).toBe(201);
    expect((await staying.answer())!.body.fields[0].name).toBe('stays');
  });

  it('one with a large body is noticed when its turn comes, and holds nobody up', async () => {
    const { release } = await occupy();
    const used: string[] = [];
    const gone = send(large);
    await until('it waits', () => uploads.gate.waiting === 1);
    const staying = send(form(field('stays', '')));
    await until('they wait', () => uploads.gate.waiting === 2);
    gone.destroy();
    uploads.whileUsed = async ({ fields }) => void used.push(...fields.map(({ name }) => name));
    release();
    expect((await staying.answer())!.status).toBe(201);
    expect(used).toEqual(['stays']);
  });

  it('a refused form gives its place back', async () => {
    for (const body of [bytes('x'), form(field('v', '\0')), large.subarray(0, -20)]) {
      expectRefused(await uploads.post(body), 400, /./);
    }
    expectRefused(await uploads.post(bytes('x'), 'text/plain'), 415, /./);
    expect((await uploads.post(large)).status).toBe(201);
  });
});

describe('with four places', () => {
  const uploads = useUploads(LARGE, 4);

  it('20 uploads of 5 MiB at once are read within 50 MiB of buffers', async () => {
    const content = Buffer.alloc(5 * MIB, 'xyz');
    const body = form(field('v', '1'), file('f', 'x.pdf', content));
    await uploads.post(body);
    let most = 0;
    let together = 0;
    let mostTogether = 0;
    uploads.whileUsed = async () => {
      mostTogether = Math.max(mostTogether, (together += 1));
      await new Promise(setImmediate);
      together -= 1;
    };
    // The clients share `body`, so that what grows is the server's.
    collectGarbage();
    const before = process.memoryUsage().arrayBuffers;
    const watching = setInterval(() => {
      collectGarbage();
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }, 20);
    const clients = Array.from({ length: 20 }, () => uploads.client());
    for (const client of clients) {
      client.head(body.length);
      client.write(body);
    }
    const answers = await Promise.all(clients.map((client) => client.answer()));
    clearInterval(watching);
    expect(answers.map((answer) => answer!.status)).toEqual(Array(20).fill(201));
    expect(new Set(answers.map((answer) => answer!.body.files[0].stored))).toEqual(
      new Set([digest(content)]),
    );
    expect(mostTogether).toBeLessThanOrEqual(4);
    expect(most / MIB).toBeLessThan(50);
  });
});

describe('a gate', () => {
  useUploads();
  const never = new AbortController().signal;

  it('refuses where its line is too long', async () => {
    const gate = new UploadGate({ places: 1, longestLine: 2 });
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = Array.from({ length: 3 }, () => gate.run(never, () => promise));
    await expect(gate.run(never, async () => {})).rejects.toMatchObject({ code: 'unavailable' });
    resolve();
    await Promise.all(held);
    await gate.run(never, async () => {});
  });

  it('lets nobody in who has left already', async () => {
    const gate = new UploadGate();
    const work = gate.run(AbortSignal.abort(), async () => expect.unreachable());
    await expect(work).rejects.toMatchObject({ code: 'validation_failed' });
  });

  it('removes the folders of killed processes, and nothing else', async () => {
    const names = ['rosterpost-upload-old', 'rosterpost-upload-new', 'other-old'];
    for (const name of names) {
      await mkdir(join(tmpdir(), name));
      await writeFile(join(tmpdir(), name, '0'), 'x');
      const age = name.endsWith('old') ? 25 * 60 * 60 : 60;
      await utimes(join(tmpdir(), name), Date.now() / 1000 - age, Date.now() / 1000 - age);
    }
    await writeFile(join(tmpdir(), 'rosterpost-upload-file'), BOUNDARY);
    await sweepSpool();
    const left = await readdir(tmpdir());
    expect(left.sort()).toEqual(['other-old', 'rosterpost-upload-file', 'rosterpost-upload-new']);
    for (const name of left) await rm(join(tmpdir(), name), { recursive: true });
  });
});
