// A mail server that takes nothing for now, or nothing of one sender: its mail stays queued and has not
// been tried, everybody else's goes on, and what is stopped can be seen.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { Breakers, listBreakers } from '../../src/smtp/breakers.ts';
import { singleTransport, type TransportConfig } from '../../src/smtp/transport-config.ts';
import { anEmail, queueEmail, registerExampleTypes } from '../support/emails.ts';
import { FAST, scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { Reply, SmtpSink } from '../support/smtp-sink.ts';
import { until } from '../support/until.ts';

const h = useHarness();
let guarded: SmtpSink;

beforeEach(async () => {
  guarded = await new SmtpSink({ login: true }).start();
});

afterEach(async () => {
  await guarded.stop();
});

const server = (name: string, url: string, more: Partial<TransportConfig> = {}) => ({
  ...singleTransport(url),
  name,
  ...more,
});
const guardedUrl = () => guarded.url.replace('://', '://user:secret@');

async function trigger(key: string, count: number, more: object = {}) {
  const members = someMembers(count);
  await h.api('POST', `/api/recipient-lists/${key}/members/bulk-upsert`, { members });
  const { body } = await h.api(
    'POST',
    `/api/recipient-lists/${key}/send`,
    scoreSend({ send_key: key, ...more }),
  );
  return body.send.id as string;
}

const completed = (sendId: string) => h.waitFor(sendId, (send) => send.completed_at !== null);
const breakers = () => listBreakers(h.database.db);
const anyBreaker = () =>
  until('a breaker to open', async () => {
    const list = await breakers();
    return list.length > 0 && list;
  });
const attemptsOf = async (sendId: string) => {
  const { body } = await h.api('GET', `/api/sends/${sendId}/messages`);
  return new Set(body.messages.map((one: { attempts: number }) => one.attempts));
};

it('stops a mail server that refuses the login; another one goes on', async () => {
  guarded.onLogin = () => new Reply(535, '5.7.8 wrong password for user@school.example');
  const sendId = await trigger('l', 50);
  await h.startWorker({
    smtpIdleMs: 200,
    transports: [server('guarded', guardedUrl(), { weight: 9 }), server('open', h.sink.url)],
    timing: { ...FAST, breakerSeconds: 60 },
  });
  expect((await completed(sendId)).counts).toMatchObject({ sent: 50 });
  expect(h.sink.countByRecipient().size).toBe(50);
  expect(await attemptsOf(sendId)).toEqual(new Set([1]));
  const [breaker, ...others] = await breakers();
  expect(others).toEqual([]);
  expect(breaker).toMatchObject({ transport: 'guarded', state: 'open', reason: 'login_refused' });
  const response = await fetch(`${h.url}/readyz`);
  expect(response.status).toBe(200);
  const { transports } = (await response.json()) as { transports: Record<string, string>[] };
  expect(transports).toMatchObject([
    { transport: 'guarded', state: 'open', reason: 'login_refused' },
  ]);
  expect(transports[0]!.last_reply).toContain('535');
  expect(JSON.stringify(transports)).not.toContain('@');
  expect(Date.parse(transports[0]!.retry_at!)).toBeGreaterThan(Date.parse(transports[0]!.since!));
});

it('keeps mail queued and untried, and goes on by itself once a probe gets through', async () => {
  guarded.onLogin = () => new Reply(535, '5.7.8 wrong password');
  await registerExampleTypes(h);
  const sendId = await trigger('l', 40);
  const emails = [
    await queueEmail(h, h.key, anEmail({ to_address: ['one@list.example'], priority_level: '1' })),
    await queueEmail(h, h.key, anEmail({ to_address: ['two@list.example'], priority_level: '2' })),
  ];
  expect(emails.map((one) => one.status)).toEqual([201, 201]);
  await h.startWorker({ smtpIdleMs: 200, transports: [server('guarded', guardedUrl())] });
  await until('probes to fail and pauses to grow', async () => {
    const { rows } = await h.database.pool.query('select failures from transport_states');
    return rows[0]?.failures >= 3;
  });
  const { rows } = await h.database.pool.query(
    `select state, attempts, count(*)::integer from messages group by 1, 2 order by 1`,
  );
  expect(rows.every((row) => row.attempts === 0 && row.state !== 'failed')).toBe(true);
  guarded.onLogin = () => undefined;
  expect((await completed(sendId)).counts).toMatchObject({ sent: 40 });
  await until('the single emails', () => guarded.accepted.length === 42);
  const got = [...guarded.countByRecipient()].filter(([to]) => to.endsWith('@list.example'));
  expect(got).toHaveLength(42);
  expect(got.every(([, count]) => count === 1)).toBe(true);
  expect(await breakers()).toEqual([]);
  expect(await attemptsOf(sendId)).toEqual(new Set([1]));
});

it('stops one sender that MAIL FROM refuses, and nobody else', async () => {
  await h.api('PUT', '/api/senders/other', { email: 'Other@school.example', name: 'Other' });
  let stopped = true;
  h.sink.onSender = (address) =>
    stopped && address.startsWith('Other@') ? new Reply(550, '5.7.1 not verified') : undefined;
  const refused = await trigger('refused', 30, { from_email: 'other' });
  const fine = await trigger('fine', 30);
  await h.startWorker();
  expect((await completed(fine)).counts).toMatchObject({ sent: 30 });
  expect(await anyBreaker()).toMatchObject([
    { transport: 'default', sender: 'other@school.example', reason: 'sender_refused' },
  ]);
  expect((await h.api('GET', `/api/sends/${refused}`)).body.send.counts).toMatchObject({
    queued: 30,
    failed: 0,
  });
  stopped = false;
  expect((await completed(refused)).counts).toMatchObject({ sent: 30 });
  expect(await attemptsOf(refused)).toEqual(new Set([1]));
  expect(await breakers()).toEqual([]);
});

it('fails the one message that MAIL FROM finds too large', async () => {
  h.sink.onSender = () => new Reply(552, '5.3.4 too large');
  const sendId = await trigger('l', 2);
  expect((await h.drain(sendId)).counts).toMatchObject({ failed: 2 });
  expect(await breakers()).toEqual([]);
});

it('slows one recipient domain that asks for it, not the others', async () => {
  let slow = true;
  h.sink.onRecipient = (address) =>
    slow && address.endsWith('@slow.example')
      ? new Reply(450, '4.7.1 too much from you')
      : undefined;
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
    members: [
      ...Array.from({ length: 30 }, (_, n) => ({
        source_object_key: `s${n}`,
        email: `s${n}@slow.example`,
      })),
      ...someMembers(30),
    ],
  });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  const worker = await h.startWorker({ timing: { ...FAST, retry: { ...FAST.retry, window: 60 } } });
  await until('the other domain', () => h.sink.accepted.length === 30);
  expect(await anyBreaker()).toMatchObject([{ domain: 'slow.example', reason: 'slowed' }]);
  slow = false;
  expect((await completed(body.send.id)).counts).toMatchObject({ sent: 60 });
  await worker.stop();
  expect(await breakers()).toEqual([]);
});

it('lets one probe go at a time, over all workers', async () => {
  const log = createLogger('silent');
  const workers = Array.from({ length: 8 }, () => new Breakers(h.database.db, log, 60));
  const key = { transport: 'a', sender: '', domain: '' };
  await workers[0]!.open(key, 'login_refused', '535 no');
  expect(await workers[1]!.takeProbe([key])).toBe(false);
  await h.database.pool.query('update transport_states set retry_at = now()');
  const took = await Promise.all(workers.map((one) => one.takeProbe([key])));
  expect(took.filter(Boolean)).toHaveLength(1);
  await workers[1]!.open(key, 'login_refused', '535 no');
  // The pause is twice as long, and what was under way does not make it longer.
  await Promise.all(workers.map((one) => one.open(key, 'login_refused', '535 no')));
  const { rows } = await h.database.pool.query(
    `select failures, extract(epoch from retry_at - now())::integer as pause from transport_states`,
  );
  expect(rows[0].failures).toBe(2);
  expect(rows[0].pause).toBeGreaterThan(100);
  expect(rows[0].pause).toBeLessThan(135);
});
