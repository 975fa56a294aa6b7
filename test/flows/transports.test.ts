// Several mail servers: which one takes which mail, and how much of it.
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConfigError, readConfig } from '../../src/config.ts';
import { returnTokens, takeTokens } from '../../src/smtp/rate-limit.ts';
import { singleTransport, type TransportConfig } from '../../src/smtp/transport-config.ts';
import { dkimTags, fieldsOf, isSignedBy } from '../support/dkim.ts';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { Reply, SmtpSink } from '../support/smtp-sink.ts';
import { until } from '../support/until.ts';

const h = useHarness();
let second: SmtpSink;

beforeEach(async () => {
  second = await new SmtpSink().start();
});

afterEach(async () => {
  await second.stop();
});

const server = (name: string, url: string, more: Partial<TransportConfig> = {}) => ({
  ...singleTransport(url),
  name,
  ...more,
});

async function trigger(members: object[], more: object = {}) {
  const key = `list-${members.length}-${JSON.stringify(more).length}`;
  await h.api('POST', `/api/recipient-lists/${key}/members/bulk-upsert`, { members });
  const { body } = await h.api(
    'POST',
    `/api/recipient-lists/${key}/send`,
    scoreSend({ send_key: key, ...more }),
  );
  return body.send.id as string;
}

const completed = (sendId: string, timeoutMs?: number) =>
  h.waitFor(sendId, (send) => send.completed_at !== null, timeoutMs);

describe('choosing', () => {
  it('shares the mail by weight', async () => {
    const sendId = await trigger(someMembers(400));
    await h.startWorker({
      smtpIdleMs: 200,
      transports: [server('a', h.sink.url, { weight: 3 }), server('b', second.url, { weight: 1 })],
    });
    expect((await completed(sendId)).counts).toMatchObject({ sent: 400 });
    expect(h.sink.accepted.length + second.accepted.length).toBe(400);
    expect(second.accepted.length).toBeGreaterThan(70);
    expect(second.accepted.length).toBeLessThan(130);
  });

  it('takes the next one in the same attempt where no connection can be made', async () => {
    const sendId = await trigger(someMembers(60));
    await h.startWorker({
      smtpIdleMs: 200,
      transports: [server('gone', 'smtp://127.0.0.1:1', { weight: 100 }), server('b', second.url)],
    });
    expect((await completed(sendId)).counts).toMatchObject({ sent: 60 });
    expect(second.countByRecipient().size).toBe(60);
    const { body } = await h.api('GET', `/api/sends/${sendId}/messages`);
    expect(body.messages.every((one: { attempts: number }) => one.attempts === 1)).toBe(true);
  });

  it('gives a sender to the mail servers that serve it, and keeps it queued where none does', async () => {
    await h.api('PUT', '/api/senders/news', { email: 'News@other.example', name: 'News' });
    await h.api('PUT', '/api/senders/lost', { email: 'lost@nobody.example', name: 'Lost' });
    const school = await trigger(someMembers(10));
    const news = await trigger(someMembers(12), { from_email: 'news' });
    const lost = await trigger(someMembers(3), { from_email: 'lost' });
    await h.startWorker({
      smtpIdleMs: 200,
      transports: [
        server('a', h.sink.url, { senders: ['*@school.example'] }),
        server('b', second.url, { senders: ['news@other.example'] }),
      ],
    });
    await Promise.all([completed(school), completed(news)]);
    expect(new Set(h.sink.accepted.map((one) => one.from))).toEqual(
      new Set(['courses@school.example']),
    );
    expect(new Set(second.accepted.map((one) => one.from.toLowerCase()))).toEqual(
      new Set(['news@other.example']),
    );
    const waiting = await until('the chunk without a mail server to wait', async () => {
      const { rows } = await h.database.pool.query(
        `select next_attempt_at > now() + interval '30 seconds' as waits from send_chunks where send_id = $1`,
        [lost],
      );
      return rows[0]?.waits === true;
    });
    expect(waiting).toBe(true);
    expect((await h.api('GET', `/api/sends/${lost}`)).body.send.counts).toMatchObject({
      queued: 3,
    });
  });
});

describe('the rate limit', () => {
  it('holds over two workers', async () => {
    const sendId = await trigger(someMembers(90));
    const transports = [server('slow', h.sink.url, { messagesPerSecond: 20 })];
    const times: number[] = [];
    h.sink.onBody = () => {
      times.push(performance.now());
      return undefined;
    };
    await Promise.all([h.startWorker({ transports }), h.startWorker({ transports })]);
    expect((await completed(sendId)).counts).toMatchObject({ sent: 90 });
    // 20 at once, the other 70 at 20 a second; how long each takes from its claim to here varies.
    expect(times.at(-1)! - times[0]!).toBeGreaterThan(3300);
    for (const [index, time] of times.entries()) {
      const inASecond = times.slice(index).filter((one) => one < time + 1000).length;
      expect(inASecond).toBeLessThanOrEqual(50);
    }
  });

  it('is told by tokens that nobody gets twice and that come back unused', async () => {
    const { db, pool } = h.database;
    const takes = await Promise.all(
      Array.from({ length: 20 }, () => takeTokens(db, 'a', 0.001, 3)),
    );
    expect(takes.reduce((sum, { taken }) => sum + taken, 0)).toBe(1);
    const empty = takes.find(({ taken }) => taken === 0)!;
    expect(empty.waitSeconds).toBeGreaterThan(990);
    await returnTokens(db, 'a', 0.001, 1);
    expect((await takeTokens(db, 'a', 0.001, 1)).taken).toBe(1);
    // Database time decides: the clock of a worker is not asked.
    await pool.query(`update transport_tokens set refilled_at = now() - interval '1000 seconds'`);
    expect((await takeTokens(db, 'a', 0.001, 1)).taken).toBe(1);
  });
});

it('has no more connections to one domain at once than configured', async () => {
  const members = [
    ...someMembers(30),
    ...Array.from({ length: 30 }, (_, n) => ({
      source_object_key: `o${n}`,
      email: `o${n}@o.example`,
    })),
  ];
  const sendId = await trigger(members);
  const inside = { 'list.example': 0, 'o.example': 0 };
  const most = { ...inside };
  h.sink.onBody = async ({ to }) => {
    const domain = to[0]!.split('@')[1] as keyof typeof inside;
    inside[domain] += 1;
    most[domain] = Math.max(most[domain], inside[domain]);
    await new Promise((resolve) => setImmediate(resolve));
    inside[domain] -= 1;
    return undefined;
  };
  await h.startWorker({
    smtpIdleMs: 200,
    transports: [server('a', h.sink.url, { perDomainConnections: 2 })],
  });
  expect((await completed(sendId)).counts).toMatchObject({ sent: 60 });
  expect(most['list.example']).toBeLessThanOrEqual(2);
  expect(most['o.example']).toBeLessThanOrEqual(2);
  // Put back without having been tried.
  const { body } = await h.api('GET', `/api/sends/${sendId}/messages`);
  expect(body.messages.every((one: { attempts: number }) => one.attempts === 1)).toBe(true);
});

it('hands nothing over without TLS where TLS is required', async () => {
  const sendId = await trigger(someMembers(3));
  const worker = await h.startWorker({
    smtpIdleMs: 200,
    transports: [server('a', h.sink.url, { tls: 'required' })],
  });
  await until('the mail server to be stopped', async () => {
    const { rows } = await h.database.pool.query('select reason from transport_states');
    return rows[0]?.reason === 'connection_refused';
  });
  await worker.stop();
  expect(h.sink.accepted).toHaveLength(0);
  await h.database.pool.query('update messages set next_attempt_at = now()');
  expect((await h.drain(sendId)).counts).toMatchObject({ sent: 3 });
});

describe('DKIM', () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;

  it('signs what the mail server got, with the fields that matter', async () => {
    await h.api('PUT', '/api/senders/courses', {
      email: 'courses@school.example',
      name: 'Courses',
      reply_to: 'help@school.example',
    });
    const sendId = await trigger(someMembers(1));
    const dkim = { domain: 'school.example', selector: 's1', privateKey: pem };
    await h.startWorker({ smtpIdleMs: 200, transports: [server('a', h.sink.url, { dkim })] });
    await completed(sendId);
    const raw = h.sink.accepted[0]!.raw.toString('latin1');
    const tags = dkimTags(raw);
    expect(tags).toMatchObject({
      a: 'rsa-sha256',
      c: 'relaxed/relaxed',
      d: 'school.example',
      s: 's1',
    });
    expect(tags.h!.split(':')).toEqual(
      expect.arrayContaining([
        'from',
        'to',
        'subject',
        'date',
        'message-id',
        'mime-version',
        'content-type',
        'reply-to',
        'list-id',
      ]),
    );
    expect(isSignedBy(privateKey, raw)).toBe(true);
  });

  it('covers the fields of one-click unsubscription', async () => {
    const sendId = await trigger(someMembers(1), {
      template_key: 'course-newsletter',
      shared_context: { title: 'News', body: 'News.' },
    });
    const dkim = { domain: 'school.example', selector: 's1', privateKey: pem };
    await h.startWorker({ smtpIdleMs: 200, transports: [server('a', h.sink.url, { dkim })] });
    await completed(sendId);
    const signed = h.sink.accepted[0]!.raw.toString('latin1');
    expect(fieldsOf(signed).filter((field) => /^list-unsubscribe/iu.test(field))).toHaveLength(2);
    expect(dkimTags(signed).h!.split(':')).toEqual(
      expect.arrayContaining(['list-unsubscribe', 'list-unsubscribe-post']),
    );
    expect(isSignedBy(privateKey, signed)).toBe(true);
  });
});

describe('configuration', () => {
  const problems = (env: NodeJS.ProcessEnv) => {
    try {
      readConfig(env);
    } catch (error) {
      return (error as ConfigError).problems;
    }
    return [];
  };

  it('names every mistake by its path, and shows no secret', () => {
    const TRANSPORTS = JSON.stringify([
      { name: 'a b', url: 'smtp://user:hunter2@', weight: 0, tls: 'maybe', colour: 'hunter2' },
      { url: 7, connections: 1.5, senders: [], dkim: { domain: 'x.example', selector: 's' } },
      'hunter2',
    ]);
    const found = problems({ TRANSPORTS });
    expect(found.map((line) => line.split(' ')[0])).toEqual([
      'TRANSPORTS[0].name',
      'TRANSPORTS[0].url',
      'TRANSPORTS[0].weight',
      'TRANSPORTS[0].tls',
      'TRANSPORTS[0].colour',
      'TRANSPORTS[1].name',
      'TRANSPORTS[1].url',
      'TRANSPORTS[1].connections',
      'TRANSPORTS[1].senders',
      'TRANSPORTS[2]',
    ]);
    expect(found.join()).not.toContain('hunter2');
  });

  it.each([
    [{ TRANSPORTS: '[{"name": hunter2' }, 'TRANSPORTS is not valid JSON'],
    [{ TRANSPORTS: '/nowhere/hunter2' }, 'TRANSPORTS is neither JSON nor the path'],
    [{ TRANSPORTS: '[]' }, 'TRANSPORTS must name at least one mail server'],
    [{ TRANSPORTS: '[]', SMTP_URL: 'smtp://a.example' }, 'both set'],
    [{ SMTP_URL: 'http://hunter2' }, 'SMTP_URL must be a URL such as'],
    [
      {
        TRANSPORTS: JSON.stringify([
          {
            name: 'a',
            url: 'smtp://a.example',
            dkim: { domain: 'a.example', selector: 's', private_key: 'hunter2' },
          },
        ]),
      },
      'TRANSPORTS[0].dkim has a private key that is not valid PEM',
    ],
  ])('refuses %j', (env, message) => {
    const found = problems(env).join();
    expect(found).toContain(message);
    expect(found).not.toContain('hunter2');
  });

  it('reads a file, with the path of a key beside it', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'transports-'));
    try {
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
      await writeFile(path.join(folder, 'key.pem'), pem);
      const dkim = { domain: 'a.example', selector: 's', private_key_file: 'key.pem' };
      await writeFile(
        path.join(folder, 'servers.json'),
        JSON.stringify([{ name: 'a', url: 'smtp://a.example', senders: ['*@A.example'], dkim }]),
      );
      const { transports } = readConfig({ TRANSPORTS: path.join(folder, 'servers.json') });
      expect(transports).toEqual([
        {
          name: 'a',
          url: 'smtp://a.example',
          weight: 1,
          connections: 20,
          tls: 'opportunistic',
          senders: ['*@a.example'],
          dkim: { domain: 'a.example', selector: 's', privateKey: pem },
        },
      ]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('is one mail server called default with SMTP_URL alone', () => {
    expect(readConfig({ SMTP_URL: 'smtp://a.example' }).transports).toMatchObject([
      { name: 'default', url: 'smtp://a.example' },
    ]);
  });
});

it('keeps partial acceptance exact while the mail goes over two mail servers', async () => {
  const sendId = await trigger(someMembers(40));
  const refuse = (address: string) =>
    address.startsWith('m1') ? new Reply(550, '5.1.1 no such user') : undefined;
  h.sink.onRecipient = refuse;
  second.onRecipient = refuse;
  await h.startWorker({
    smtpIdleMs: 200,
    transports: [server('a', h.sink.url), server('b', second.url)],
  });
  expect((await completed(sendId)).counts).toMatchObject({ sent: 29, failed: 11 });
});
