// What comes back from a provider, or does not: every answer and every failure is a value, within the time
// and the bytes the policy gives, and the connection is ended in each case.
import { createServer, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { postSigned, type CallbackAnswer, type CallbackPolicy } from '../../src/callback/post.ts';
import { ContextProvider } from '../support/context-provider.ts';
import { until } from '../support/until.ts';

const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const POLICY: CallbackPolicy = {
  allow: ['127.0.0.0/8'],
  ports: [80, 443],
  timeoutMs: 10_000,
  maxBytes: 1000,
};
const SHORT = { ...POLICY, timeoutMs: 200 };

/** A server that does `act` with each connection once the request has begun to arrive. */
let act: (socket: Socket) => void;
let server: Server;
let url: string;
const open = new Set<Socket>();

beforeEach(async () => {
  server = createServer((socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    socket.on('error', () => undefined);
    socket.once('data', () => act(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/contexts`;
});

afterEach(async () => {
  await until('the connections to end', () => open.size === 0);
  await new Promise((resolve) => server.close(resolve));
});

function post(more: { policy?: CallbackPolicy; signal?: AbortSignal; url?: string } = {}) {
  return postSigned({ url, id: 'i', secret: SECRET, body: '{}', policy: POLICY, ...more });
}

function answering(text: string, { end = true } = {}) {
  act = (socket) => {
    socket.write(text);
    if (end) socket.end();
  };
  return post();
}

const unreachable = (detail: string): CallbackAnswer => ({
  kind: 'unreachable',
  detail: expect.stringContaining(detail) as string,
});

describe('an answer', () => {
  it('is given whole, with any status', async () => {
    const long = 'a'.repeat(1000);
    expect(await answering(`HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n${long}`)).toEqual({
      kind: 'answered',
      status: 200,
      retryAfterSeconds: undefined,
      body: Buffer.from(long),
    });
    const chunked =
      'HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n';
    const busy = await answering(chunked, { end: false });
    expect(busy).toMatchObject({ kind: 'answered', status: 503, body: Buffer.from('abc') });
    const untilClosed = await answering('HTTP/1.0 404 No\r\n\r\nnothing');
    expect(untilClosed).toMatchObject({ status: 404, body: Buffer.from('nothing') });
    const none = await answering('HTTP/1.1 204 None\r\n\r\n', { end: false });
    expect(none).toMatchObject({ kind: 'answered', status: 204, body: Buffer.alloc(0) });
  });

  it('is not decompressed', async () => {
    const squeezed =
      'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\u001f\b!';
    expect(await answering(squeezed)).toMatchObject({
      status: 200,
      body: Buffer.from('\u001f\b!'),
    });
  });

  it('says when to come again, in seconds or as a date, at most a day later', async () => {
    const retryAfter = async (value: string) => {
      const answer = await answering(`HTTP/1.1 429 Slow\r\nRetry-After: ${value}\r\n\r\n`);
      return answer.kind === 'answered' ? answer.retryAfterSeconds : answer;
    };
    const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000).toUTCString();
    expect(await retryAfter('0')).toBe(0);
    expect(await retryAfter('120')).toBe(120);
    expect(await retryAfter('999999999999')).toBe(86_400);
    const soon = await retryAfter(inSeconds(1000));
    expect(soon).toBeGreaterThan(900);
    expect(soon).toBeLessThanOrEqual(1000);
    expect(await retryAfter(inSeconds(-1000))).toBe(0);
    expect(await retryAfter(inSeconds(1_000_000))).toBe(86_400);
    for (const nonsense of ['soon', '-5', '1.5', '', '12 GMT x', 'Sat, 99 Foo 2026 00:00:00 GMT'])
      expect(await retryAfter(nonsense), nonsense).toBeUndefined();
  });

  it('is refused where it is too large, whatever length it claims', async () => {
    const large = { kind: 'too_large', detail: expect.stringContaining('1000 bytes') };
    expect(
      await answering('HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n', { end: false }),
    ).toEqual(large);
    const endless = (head: string, part: string) => {
      act = (socket) => {
        socket.write(head);
        const more = () => void (socket.writable && socket.write(part, () => setImmediate(more)));
        more();
      };
      return post();
    };
    expect(await endless('HTTP/1.1 200 OK\r\n\r\n', 'a'.repeat(100))).toEqual(large);
    expect(
      await endless('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', '5\r\nabcde\r\n'),
    ).toEqual(large);
  });
});

describe('no whole answer', () => {
  it('in time: the headers, the body or their trickle take too long', async () => {
    const late = unreachable('no complete answer within 0.2 s');
    const trickling = (head: string, part: string) => (socket: Socket) => {
      socket.write(head);
      const timer = setInterval(() => socket.write(part), 20);
      socket.once('close', () => clearInterval(timer));
    };
    const slow: ((socket: Socket) => void)[] = [
      () => undefined,
      (socket) => socket.write('HTTP/1.1 200 OK\r\n'),
      (socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n'),
      (socket) => socket.write('HTTP/1.1 100 Continue\r\n\r\n'),
      trickling('HTTP/1.1 200 OK\r\nX-Slow: ', 'a'),
      trickling('HTTP/1.1 200 OK\r\n\r\n', 'a'),
      trickling('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', '1\r\na\r\n'),
      trickling('', 'HTTP/1.1 102 Processing\r\n\r\n'),
    ];
    for (const [index, one] of slow.entries()) {
      act = one;
      expect(await post({ policy: SHORT }), `slow ${index}`).toEqual(late);
    }
    const never = await postSigned(
      { url: 'http://provider.example/', id: 'i', secret: SECRET, body: '{}', policy: SHORT },
      () => new Promise(() => undefined),
    );
    expect(never).toEqual(late);
  });

  it('because the connection is refused, reset or ended early', async () => {
    act = (socket) => socket.resetAndDestroy();
    expect(await post()).toEqual(unreachable('ECONNRESET'));
    act = (socket) => socket.end();
    expect(await post()).toEqual(unreachable('socket hang up'));
    const cut = unreachable('lost in the middle of the answer');
    expect(await answering('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab')).toEqual(cut);
    expect(await answering('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab')).toEqual(
      cut,
    );
    act = (socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab', () =>
        socket.resetAndDestroy(),
      );
    };
    expect((await post()).kind).toBe('unreachable');
    act = (socket) => {
      socket.write('HTTP/1.1 200 OK\r\n\r\nab');
      setImmediate(() => socket.resetAndDestroy());
    };
    expect((await post()).kind, 'a body without a length').toBe('unreachable');
    const closed = createServer();
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
    const { port } = closed.address() as AddressInfo;
    await new Promise((resolve) => closed.close(resolve));
    const refused = await post({ url: `http://127.0.0.1:${port}/` });
    expect(refused).toEqual(unreachable('ECONNREFUSED'));
  });

  it('because the other side does not speak HTTP', async () => {
    for (const text of [
      'garbage\r\n\r\n',
      'SSH-2.0-OpenSSH_9.9\r\n',
      'HTTP/1.1 abc\r\n\r\n',
      'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
      `HTTP/1.1 200 OK\r\nX-Long: ${'a'.repeat(100_000)}\r\n\r\n`,
      'HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nabc',
    ]) {
      const answer = await answering(text);
      expect(answer, text).toEqual({
        kind: 'unreachable',
        detail: expect.stringMatching(/^[^\p{Cc}]+$/u),
      });
    }
  });

  it('because it speaks no TLS', async () => {
    act = (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
    const answer = await post({ url: url.replace('http:', 'https:') });
    expect(answer).toEqual({ kind: 'unreachable', detail: expect.stringMatching(/^[^\p{Cc}]+$/u) });
  });

  it('because the name does not exist or has no address', async () => {
    const given = {
      url: 'http://provider.example/',
      id: 'i',
      secret: SECRET,
      body: '{}',
      policy: POLICY,
    };
    const notFound = await postSigned(given, async (name) => {
      throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: 'ENOTFOUND' });
    });
    expect(notFound).toEqual(unreachable('ENOTFOUND provider.example'));
    expect(await postSigned(given, async () => [])).toEqual(unreachable('no address'));
  });

  it('because it was cancelled, before or while it waits', async () => {
    expect(await post({ signal: AbortSignal.abort() })).toEqual(unreachable('cancelled'));
    const stop = new AbortController();
    act = () => stop.abort();
    expect(await post({ signal: stop.signal })).toEqual(unreachable('cancelled'));
  });
});

it('comes from a provider that checks the signature', async () => {
  const provider = await new ContextProvider({ secret: SECRET }).start();
  try {
    const body = JSON.stringify({
      send_id: 's',
      send_key: 'k',
      list_key: 'l',
      template_key: 't',
      chunk: 1,
      recipients: [{ source_object_key: 'm1', email: 'm1@list.example' }],
    });
    const given = { url: provider.url, id: 'one', secret: SECRET, body, policy: POLICY };
    expect(await postSigned(given)).toMatchObject({
      kind: 'answered',
      status: 200,
      body: Buffer.from('{"contexts":{"m1":{"name":"m1"}}}'),
    });
    const secret = `whsec_${Buffer.alloc(24, 1).toString('base64')}`;
    expect(await postSigned({ ...given, secret })).toMatchObject({ status: 401 });
    expect(provider.refused).toBe(1);
    provider.plan = (_request, timesSeen) =>
      timesSeen === 2 ? { status: 429, headers: { 'retry-after': '7' } } : 'huge';
    expect(await postSigned(given)).toMatchObject({ status: 429, retryAfterSeconds: 7 });
    expect(await postSigned(given)).toMatchObject({ kind: 'too_large' });
    provider.plan = () => 'reset';
    expect(await postSigned(given)).toMatchObject({ kind: 'unreachable' });
    provider.plan = () => 'timeout';
    expect(await postSigned({ ...given, policy: SHORT })).toMatchObject({ kind: 'unreachable' });
    expect(provider.countOf('one')).toEqual({ asked: 5, answered: 1 });
    expect(provider.countByKey()).toEqual(new Map([['m1', 5]]));
  } finally {
    await provider.stop();
  }
});
