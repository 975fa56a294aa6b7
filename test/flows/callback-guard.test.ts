// Where a callback may go. Listeners on 127.0.0.1 and ::1 stand for what only our machine reaches; their
// port is an allowed one, so that nothing but the rule for addresses protects them. However a client
// spells an address, they get no connection.
import { createServer, type Server } from 'node:http';
import type { LookupAddress } from 'node:dns';
import { connect, isIPv6, type AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  postSigned,
  urlFlaw,
  type CallbackPolicy,
  type CallbackRequest,
  type Resolve,
} from '../../src/callback/post.ts';

const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const LOOPBACK = ['127.0.0.0/8', '::1'];

/** One port on both loopback addresses; counts every connection it accepts. */
class Trap {
  port = 0;
  connections = 0;
  requests: { headers: Record<string, string>; body: string }[] = [];
  /** On a machine without IPv6, one. */
  readonly hosts: string[] = [];
  readonly #servers: Server[] = [];

  async start(): Promise<void> {
    this.port = await this.#listen('127.0.0.1', 0);
    await this.#listen('::1', this.port).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EADDRNOTAVAIL' && error.code !== 'EAFNOSUPPORT') throw error;
    });
  }

  async #listen(host: string, port: number): Promise<number> {
    const server = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => {
        const headers = request.headers as Record<string, string>;
        this.requests.push({ headers, body: Buffer.concat(parts).toString() });
        response.end('{}');
      });
    });
    server.on('connection', () => (this.connections += 1));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    this.#servers.push(server);
    this.hosts.push(host);
    return (server.address() as AddressInfo).port;
  }

  /** How many there were. A connection of our own is accepted after any that was made before it. */
  async count(): Promise<number> {
    for (const host of this.hosts) {
      const socket = connect({ host, port: this.port });
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject);
        socket.once('end', resolve);
        socket.resume().end('no HTTP\r\n\r\n');
      });
    }
    const others = this.connections - this.hosts.length;
    this.connections = 0;
    return others;
  }

  async stop(): Promise<void> {
    await Promise.all(
      this.#servers.map((server) => new Promise((resolve) => server.close(resolve))),
    );
  }
}

const trap = new Trap();
let policy: CallbackPolicy;

beforeAll(async () => {
  await trap.start();
  policy = { allow: [], ports: [80, 443, trap.port], timeoutMs: 10_000, maxBytes: 1000 };
});
beforeEach(() => {
  trap.connections = 0;
  trap.requests.length = 0;
});
afterAll(() => trap.stop());

function post(url: string, more: Partial<CallbackRequest> = {}, resolve?: Resolve) {
  const given = { url, id: 'send-1.chunk-1', secret: SECRET, body: '{"a":"é"}', policy, ...more };
  return resolve ? postSigned(given, resolve) : postSigned(given);
}

const giving =
  (...addresses: string[]): Resolve =>
  async () =>
    addresses.map(lookedUp);

function lookedUp(address: string): LookupAddress {
  return { address, family: isIPv6(address) ? 6 : 4 };
}

/** Spellings of the trap's own addresses. */
const OURS = [
  '127.0.0.1',
  '127.1',
  '127.0.1',
  '2130706433',
  '017700000001',
  '0x7f000001',
  '0X7F000001',
  '0177.0.0.1',
  '0177.0.0.01',
  '0x7f.0.0.1',
  '0x7f.1',
  '127.0x0.0.1',
  '127.0.0.1.',
  '①②⑦.⓪.⓪.①',
  '\uff11\uff12\uff17.\uff10.\uff10.\uff11', // full width
  '127。0。0。1',
  '%31%32%37.0.0.1',
  '127%2e0%2e0%2e1',
];

const OURS_V6 = ['[::1]', '[0:0:0:0:0:0:0:1]', '[0000::0001]', '[::0.0.0.1]'];

const OURS_MAPPED = ['[::ffff:127.0.0.1]', '[::FFFF:7f00:1]', '[0:0:0:0:0:ffff:7f00:0001]'];

/** Forms that carry 127.0.0.1 in an IPv6 address and never stand for it here. */
const CARRYING = [
  '[::127.0.0.1]',
  '[::7f00:1]',
  '[::ffff:0:127.0.0.1]',
  '[::ffff:0:7f00:1]',
  '[64:ff9b::127.0.0.1]',
  '[64:ff9b::7f00:1]',
  '[64:ff9b:1::7f00:1]',
  '[2002:7f00:1::]',
  '[2002:7f00:1::1]',
  '[2001:0:7f00:1::]',
  '[2001:0:4136:e378:8000:63bf:80ff:fffe]',
];

const OTHERS = [
  '0',
  '0.0.0.0',
  '0x0',
  '0.1.2.3',
  '127.255.255.254',
  '10.0.0.1',
  '100.64.0.1',
  '100.127.255.255',
  '169.254.169.254',
  '168.63.129.16',
  '0xa9fea9fe',
  '2852039166',
  '[::ffff:169.254.169.254]',
  '172.16.0.1',
  '172.31.255.255',
  '192.0.0.1',
  '192.0.2.1',
  '192.88.99.1',
  '192.168.0.1',
  '198.18.0.1',
  '198.19.255.255',
  '198.51.100.1',
  '203.0.113.1',
  '224.0.0.1',
  '239.255.255.255',
  '240.0.0.1',
  '255.255.255.255',
  '4294967295',
  '[::]',
  '[::2]',
  '[::ffff:8.8.8.8]',
  '[64:ff9b::808:808]',
  '[100::1]',
  '[2001:2::1]',
  '[2001:10::1]',
  '[2001:20::1]',
  '[2001:db8::1]',
  '[2002:808:808::1]',
  '[2620:4f:8000::1]',
  '[3fff::1]',
  '[4000::1]',
  '[5f00::1]',
  '[fc00::1]',
  '[fd00:ec2::254]',
  '[fe80::1]',
  '[febf::1]',
  '[fec0::1]',
  '[ff02::1]',
  '[ff0e::1]',
];

const LOCALHOST = ['localhost', 'LOCALHOST', 'localhost.', 'a.localhost', '\uff4cocalhost'];

/** What no URL may be, whatever it points to. */
const MALFORMED = (port: number) => [
  `http://[fe80::1%25eth0]:${port}/`,
  `http://[fe80::1%eth0]:${port}/`,
  `http://[::1%25lo]:${port}/`,
  `http://127.0.0.256:${port}/`,
  `http://127.0.0.0.1:${port}/`,
  `http://0x7f.0.0.0x100:${port}/`,
  `http://user@127.0.0.1:${port}/`,
  `http://:secret@127.0.0.1:${port}/`,
  `http://public.example:443@127.0.0.1:${port}/`,
  `ftp://127.0.0.1:${port}/`,
  `file://127.0.0.1/etc/hostname`,
  `ws://127.0.0.1:${port}/`,
  `//127.0.0.1:${port}/`,
  `127.0.0.1:${port}`,
  `http://`,
  '',
  `http://127.0.0.1:${port}/${'a'.repeat(2048)}`,
  `http:127.0.0.1:${port}/`,
  `http:/127.0.0.1:${port}/`,
  `http:\\\\127.0.0.1:${port}\\`,
  `http://127.0.0.1:${port}\\@public.example/`,
  `http://12\t7.0.0.1:${port}/`,
  `  http://127.0.0.1:${port}/`,
  `http://127.0.0.1:${port}/\n`,
];

/** URLs whose host is not where it seems to be. */
const HIDDEN = (port: number) => [
  `http:////127.0.0.1:${port}/`,
  `http://127.0.0.1:${port}#@public.example/`,
  `http://127.0.0.1:${port}?@public.example/`,
  `HTTP://127.0.0.1:0${port}/`,
];

describe('an address in the URL', () => {
  it('is never called where it is no plain public one, however it is spelled', async () => {
    const hosts = [...OURS, ...OURS_V6, ...OURS_MAPPED, ...CARRYING, ...OTHERS, ...LOCALHOST];
    expect(new Set(hosts).size).toBe(hosts.length);
    const urls = [
      ...hosts.map((host) => `http://${host}:${trap.port}/`),
      ...MALFORMED(trap.port),
      ...HIDDEN(trap.port),
    ];
    for (const url of urls) {
      expect(urlFlaw(url, policy), url).toMatch(/^must /);
      const answer = await post(url, {}, giving('127.0.0.1'));
      expect(answer, url).toEqual({ kind: 'forbidden', detail: expect.stringMatching(/./) });
    }
    expect(await trap.count(), `${urls.length} URLs`).toBe(0);
  });

  it('is called in all these spellings where its network is allowed', async () => {
    const v6 = trap.hosts.includes('::1') ? [...OURS_V6, ...OURS_MAPPED] : [];
    const urls = [
      ...[...OURS, ...v6].map((host) => `http://${host}:${trap.port}/`),
      ...HIDDEN(trap.port),
    ];
    for (const [index, url] of urls.entries()) {
      const answer = await post(url, { policy: { ...policy, allow: LOOPBACK, ports: [80] } });
      expect(answer, url).toMatchObject({ kind: 'answered', status: 200 });
      expect(trap.connections, url).toBe(index + 1);
    }
  });

  it('is not allowed by an IPv4 address that it carries, but for a mapped one', async () => {
    const allowing = { ...policy, allow: ['0.0.0.0/0'] };
    for (const host of CARRYING) {
      const url = `http://${host}:${trap.port}/`;
      expect(await post(url, { policy: allowing }), url).toMatchObject({ kind: 'forbidden' });
    }
    for (const host of [...OURS_MAPPED, '[::ffff:10.0.0.1]'])
      expect(urlFlaw(`http://${host}/`, allowing), host).toBeUndefined();
    expect(await trap.count(), 'carried addresses').toBe(0);
  });

  it('may be any plain public one, on the allowed ports', () => {
    const hosts = [
      '1.1.1.1',
      '8.8.8.8',
      '11.0.0.1',
      '100.63.255.255',
      '100.128.0.1',
      '172.15.255.255',
      '172.32.0.1',
      '192.0.1.1',
      '198.17.255.255',
      '198.20.0.1',
      '223.255.255.255',
      '[2001:4860:4860::8888]',
      '[2606:4700:4700::1111]',
      '[2a00:1450::1]',
      'provider.example',
      'bücher.example',
    ];
    for (const host of hosts) {
      expect(urlFlaw(`http://${host}/a?b=c`, policy), host).toBeUndefined();
      expect(urlFlaw(`https://${host}/`, policy), host).toBeUndefined();
      expect(urlFlaw(`https://${host}:8443/`, policy), host).toContain('not 8443');
      expect(urlFlaw(`http://${host}:22/`, policy), host).toContain('not 22');
    }
  });
});

describe('a name', () => {
  it('is not called where any of its addresses is forbidden', async () => {
    const url = `http://provider.example:${trap.port}/`;
    const several: string[][] = [
      ['127.0.0.1'],
      ['::1'],
      ['::ffff:127.0.0.1'],
      ['64:ff9b::7f00:1'],
      ['169.254.169.254'],
      ['fe80::1%eth0'],
      ['1.1.1.1', '127.0.0.1'],
      ['127.0.0.1', '1.1.1.1'],
      ['2606:4700:4700::1111', '1.1.1.1', '::1'],
      ['127.1'],
      ['no address'],
    ];
    for (const addresses of several) {
      const answer = await post(url, {}, giving(...addresses));
      expect(answer, addresses.join()).toEqual({
        kind: 'forbidden',
        detail: expect.stringContaining('provider.example'),
      });
      // A client is not to learn what a name inside the network resolves to.
      for (const address of addresses) expect(JSON.stringify(answer)).not.toContain(address);
    }
    expect(await trap.count(), 'forbidden among others').toBe(0);
  });

  it('is called where all its addresses lie in allowed networks, at the first that answers', async () => {
    const allowing = { ...policy, allow: LOOPBACK, ports: [80] };
    const url = `http://provider.internal:${trap.port}/`;
    for (const addresses of [['127.0.0.1'], ['::1', '127.0.0.1'], ['127.0.0.1', '::1']]) {
      trap.connections = 0;
      const answer = await post(url, { policy: allowing }, giving(...addresses));
      expect(answer, addresses.join()).toMatchObject({ kind: 'answered', status: 200 });
      expect(trap.connections).toBe(1);
      expect(trap.requests.pop()!.headers.host).toBe(`provider.internal:${trap.port}`);
    }
    const real = await post(`http://localhost:${trap.port}/`, { policy: allowing });
    expect(real).toMatchObject({ kind: 'answered' });
  });

  it('is looked up once: an address given a second time is never used', async () => {
    const rebinding = (...turns: string[]) => {
      const asked: string[] = [];
      const resolve: Resolve = async (name) => {
        asked.push(name);
        return [lookedUp(turns[Math.min(asked.length, turns.length) - 1]!)];
      };
      return { asked, resolve };
    };
    // Nobody listens at the first; the second is the trap.
    const away = rebinding('192.0.2.1', '127.0.0.1');
    const short = { ...policy, allow: ['192.0.2.1'], timeoutMs: 200 };
    const answer = await post(`http://a.example:${trap.port}/`, { policy: short }, away.resolve);
    expect(answer.kind).toBe('unreachable');
    expect(away.asked).toEqual(['a.example']);
    expect(await trap.count(), 'the second answer of the resolver').toBe(0);
    // The trap is the first, and allowed; the second is not.
    const here = rebinding('127.0.0.1', '10.0.0.1');
    const allowing = { ...policy, allow: ['127.0.0.1/32'] };
    const good = await post(`http://a.example:${trap.port}/`, { policy: allowing }, here.resolve);
    expect(good.kind).toBe('answered');
    expect(here.asked).toEqual(['a.example']);
    // The next request asks anew.
    const next = await post(`http://a.example:${trap.port}/`, { policy: allowing }, here.resolve);
    expect(next.kind).toBe('forbidden');
  });

  it('may be called on other ports in allowed networks only', async () => {
    const allowing = { ...policy, allow: ['127.0.0.1'], ports: [443] };
    const url = `http://provider.example:${trap.port}/`;
    expect(urlFlaw(url, allowing)).toBeUndefined(); // it may lie in the allowed network
    expect(urlFlaw(url, { ...allowing, allow: [] })).toContain(`not ${trap.port}`);
    expect(await post(url, { policy: allowing }, giving('1.1.1.1'))).toMatchObject({
      kind: 'forbidden',
      detail: expect.stringContaining(`not ${trap.port}`),
    });
    expect(await post(url, { policy: allowing }, giving('127.0.0.1', '1.1.1.1'))).toMatchObject({
      kind: 'forbidden',
    });
    expect(await trap.count(), 'forbidden ports').toBe(0);
    expect(await post(url, { policy: allowing }, giving('127.0.0.1'))).toMatchObject({
      kind: 'answered',
    });
  });
});

it('follows no redirect', async () => {
  const statuses = [301, 302, 303, 307, 308];
  const redirecting = createServer((request, response) => {
    const status = Number(request.url!.slice(1));
    response.writeHead(status, { location: `http://127.0.0.1:${trap.port}/` }).end();
  });
  await new Promise<void>((resolve) => redirecting.listen(0, '127.0.0.1', resolve));
  const { port } = redirecting.address() as AddressInfo;
  try {
    for (const status of statuses) {
      const allowing = { ...policy, allow: LOOPBACK };
      const answer = await post(`http://127.0.0.1:${port}/${status}`, { policy: allowing });
      expect(answer).toMatchObject({ kind: 'answered', status });
    }
    expect(await trap.count(), 'where redirects point').toBe(0);
  } finally {
    redirecting.close();
  }
});

it('signs per Standard Webhooks, each try anew under the same id', async () => {
  const allowing = { ...policy, allow: LOOPBACK };
  for (let time = 0; time < 2; time += 1)
    await post(`http://127.0.0.1:${trap.port}/`, { policy: allowing });
  expect(trap.requests).toHaveLength(2);
  for (const { headers, body } of trap.requests) {
    expect(new Webhook(SECRET).verify(body, headers)).toEqual({ a: 'é' });
    const other = `whsec_${Buffer.alloc(32, 8).toString('base64')}`;
    expect(() => new Webhook(other).verify(body, headers)).toThrow('No matching signature');
    expect(() => new Webhook(SECRET).verify(`${body} `, headers)).toThrow('No matching signature');
    expect(headers).toMatchObject({
      'webhook-id': 'send-1.chunk-1',
      'content-type': 'application/json',
      'accept-encoding': 'identity',
      'user-agent': expect.stringMatching(/^Rosterpost\/\d/),
    });
  }
});
