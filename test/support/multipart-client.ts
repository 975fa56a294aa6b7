// Uploads as clients send them, down to the byte: an encoder of forms, a socket that says what it wants
// when it wants, and a server that is nothing but withMultipart behind an UploadGate. The server's
// temporary folder is its own, so that a test sees every file left behind.
import { createHash } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serve, type ServerType } from '@hono/node-server';
import { Hono } from 'hono';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import {
  withMultipart,
  type MultipartForm,
  type MultipartLimits,
} from '../../src/http/multipart.ts';
import { problemOf, problemResponse } from '../../src/http/problem.ts';
import { UploadGate } from '../../src/http/upload-gate.ts';
import { createLogger } from '../../src/log.ts';
import { until } from './until.ts';

const SYSTEM_TMP = tmpdir();

export const BOUNDARY = 'bOuNd4ry';
export const LIMITS: MultipartLimits = {
  fieldBytes: 1_000,
  fields: 20,
  files: 3,
  fileBytes: 100_000,
  totalFileBytes: 150_000,
  timeoutMs: 20_000,
  silenceMs: 10_000,
  leastBytesPerSecond: 1,
};

export type Bytes = string | Buffer;

/** Strings are UTF-8. */
export function bytes(...parts: Bytes[]): Buffer {
  return Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
}

/** One part with these header lines, without the boundary after it. */
export function part(header: Bytes[], content: Bytes = '', boundary = BOUNDARY): Buffer {
  const lines = header.flatMap((line) => [line, '\r\n']);
  return bytes(`--${boundary}\r\n`, ...lines, '\r\n', content, '\r\n');
}

export function field(name: string, value: Bytes, more: Bytes[] = [], boundary = BOUNDARY): Buffer {
  return part([`Content-Disposition: form-data; name="${name}"`, ...more], value, boundary);
}

export function file(
  name: string,
  fileName: Bytes,
  content: Bytes,
  type: string | undefined = 'application/pdf',
  boundary = BOUNDARY,
): Buffer {
  const disposition = bytes(
    `Content-Disposition: form-data; name="${name}"; filename="`,
    fileName,
    '"',
  );
  return part([disposition, ...(type ? [`Content-Type: ${type}`] : [])], content, boundary);
}

/** The parts and the final boundary. */
export function form(...parts: Bytes[]): Buffer {
  return bytes(...parts, `--${BOUNDARY}--\r\n`);
}

export interface Answer {
  status: number;
  headers: Headers;
  body: any;
}

/** A connection on which several requests may be sent. */
export class RawClient {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  #received = Buffer.alloc(0);
  #ended = false;

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    this.socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk]);
    });
    this.socket.on('error', () => {});
    this.closed = new Promise((resolve) => {
      for (const event of ['end', 'close']) {
        this.socket.once(event, () => {
          this.#ended = true;
          resolve();
        });
      }
    });
  }

  /** The head of a request; `length` undefined: chunked. */
  head(length: number | undefined, type = `multipart/form-data; boundary=${BOUNDARY}`): void {
    const framing =
      length === undefined ? 'Transfer-Encoding: chunked' : `Content-Length: ${length}`;
    this.write(`POST / HTTP/1.1\r\nHost: x\r\nContent-Type: ${type}\r\n${framing}\r\n\r\n`);
  }

  write(data: Bytes): void {
    this.socket.write(data);
  }

  writeChunk(data: Bytes): void {
    this.write(bytes(Buffer.byteLength(data).toString(16), '\r\n', data, '\r\n'));
  }

  /** The next answer; undefined where the server closes without one. */
  async answer(): Promise<Answer | undefined> {
    const found = await until('an answer', () => this.#take() ?? (this.#ended && 'none'));
    return found === 'none' ? undefined : found;
  }

  #take(): Answer | undefined {
    const end = this.#received.indexOf('\r\n\r\n');
    if (end < 0) return undefined;
    const [statusLine, ...lines] = this.#received.subarray(0, end).toString('latin1').split('\r\n');
    const headers = new Headers(
      lines.map((line): [string, string] => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon), line.slice(colon + 1).trim()];
      }),
    );
    const last = end + 4 + Number(headers.get('content-length') ?? 0);
    if (this.#received.length < last) return undefined;
    const text = this.#received.subarray(end + 4, last).toString('utf8');
    this.#received = this.#received.subarray(last);
    return {
      status: Number(statusLine!.split(' ')[1]),
      headers,
      body: text === '' ? undefined : JSON.parse(text),
    };
  }

  destroy(): void {
    this.socket.destroy();
  }
}

export interface Uploads {
  port: number;
  gate: UploadGate;
  /** The server's end of each connection there was. */
  sockets: Socket[];
  /** What the temporary folder holds. */
  leftovers(): Promise<string[]>;
  /** Held by each request between reading its form and answering. */
  whileUsed: (form: MultipartForm) => Promise<void>;
  /** One request on a connection of its own, the body in one write. */
  post(body: Bytes, type?: string): Promise<Answer>;
  client(): RawClient;
}

/** Call at the top of a file or describe. After each test nothing may be left in the folder. */
export function useUploads(limits: Partial<MultipartLimits> = {}, places = 8): Uploads {
  const log = createLogger('silent');
  const uploads = { sockets: [], whileUsed: async () => {} } as unknown as Uploads;
  const clients: RawClient[] = [];
  const before = process.env.TMPDIR;
  let folder: string;
  let server: ServerType;

  beforeAll(async () => {
    folder = mkdtempSync(join(SYSTEM_TMP, 'multipart-test-'));
    process.env.TMPDIR = folder;
    uploads.gate = new UploadGate({ places });
    const app = new Hono();
    app.onError((error, c) => problemResponse(c, problemOf(error, log)));
    app.post('/', (c) =>
      uploads.gate.run(c.req.raw.signal, () =>
        withMultipart(c.req.raw, { ...LIMITS, ...limits }, async (read) => {
          await uploads.whileUsed(read);
          return c.json(await described(read), 201);
        }),
      ),
    );
    server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' });
    server.on('connection', (socket: Socket) => uploads.sockets.push(socket));
    await new Promise((resolve) => server.once('listening', resolve));
    uploads.port = (server.address() as AddressInfo).port;
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    uploads.whileUsed = async () => {};
    await until('no file is left', async () => (await uploads.leftovers()).length === 0);
    await until('every connection is closed', () => uploads.sockets.every((one) => one.destroyed));
    uploads.sockets.length = 0;
  });

  afterAll(async () => {
    await new Promise((resolve) => server.close(resolve));
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
    await rm(folder, { recursive: true });
  });

  uploads.leftovers = () => readdir(folder);
  uploads.client = () => {
    const client = new RawClient(uploads.port);
    clients.push(client);
    return client;
  };
  uploads.post = async (body, type) => {
    const client = uploads.client();
    client.head(Buffer.byteLength(body), type);
    client.write(body);
    const answer = await client.answer();
    client.destroy();
    expect(answer, 'the connection was closed without an answer').toBeDefined();
    return answer!;
  };
  return uploads;
}

/** The form with the digest of what is on disk beside the one told. */
async function described({ fields, files }: MultipartForm) {
  const described = await Promise.all(
    files.map(async ({ path, sha256, name, ...file }) => ({
      ...file,
      name: name ?? null,
      sha256: sha256.toString('hex'),
      stored: digest(await readFile(path)),
      mode: ((await stat(path)).mode & 0o777).toString(8),
    })),
  );
  return { fields, files: described };
}

/** A problem of this kind whose words match. */
export function expectRefused(answer: Answer, status: number, words: RegExp, path?: string): void {
  const what = `${answer.status} ${JSON.stringify(answer.body)}`;
  expect(answer.status, what).toBe(status);
  expect(answer.headers.get('content-type'), what).toBe('application/problem+json');
  const code = {
    400: 'validation_failed',
    413: 'payload_too_large',
    415: 'unsupported_media_type',
    503: 'unavailable',
  };
  expect(answer.body.code, what).toBe(code[status as keyof typeof code]);
  expect(answer.body.detail, what).toMatch(words);
  if (path !== undefined) expect(answer.body.errors?.[0]?.path, what).toBe(path);
}

export function digest(content: Bytes): string {
  return createHash('sha256').update(content).digest('hex');
}
