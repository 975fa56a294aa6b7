// The mail server misbehaves at every stage: mail is delayed, never lost, and there is a second copy
// only where nobody could know that the first had been accepted.
import { afterEach, beforeAll, expect, it } from 'vitest';
import { expectExactlyOnce, expectNothingLost, useFaultStage } from '../support/fault-stage.ts';
import type { FaultStage } from '../support/faulty-sink.ts';
import { until } from '../support/until.ts';

const stage = useFaultStage();

beforeAll(async () => {
  stage.startWorker();
  await stage.untilWorkers(1);
});

afterEach(() => {
  stage.sink.mend();
  stage.smtp.heal();
});

it('without a fault each mail goes out once', async () => {
  const mailing = await stage.mail('no fault');
  const account = await stage.settle(mailing);
  await expectExactlyOnce(stage, account);
  // A tenth of the 200 single mails have three recipients.
  expect(account).toMatchObject({ mails: 2240, sent: 2240 });
});

it('dropped before the body, at each stage: tried again, once each', async () => {
  const stages: FaultStage[] = ['connect', 'greeting', 'ehlo', 'mail', 'rcpt', 'data'];
  const faults = stages.map((at) => stage.sink.misbehave(at, 'drop', { rate: 0.5, times: 30 }));
  const mailing = await stage.mail('dropped early');
  await expectExactlyOnce(stage, await stage.settle(mailing));
  expect(faults.map((fault) => fault.hits)).toEqual(stages.map(() => 30));
});

it('dropped in the body or before the final dot is answered: nobody knows, sent once more', async () => {
  stage.sink.misbehave('body', 'drop', { rate: 0.1, times: 40 });
  stage.sink.misbehave('dot', 'drop', { rate: 0.1, times: 40 });
  const mailing = await stage.mail('dropped late');
  const account = await stage.settle(mailing);
  await expectNothingLost(stage, account);
  expect(account.duplicates).toBe(0); // it had not accepted them
  expect(account.wasUnknown).toBeGreaterThanOrEqual(40);
});

it('a storm of 4xx, and 5xx for some: tried again, the latter fail', async () => {
  const storm = { rate: 0.3, times: 60 };
  stage.sink.misbehave('mail', { reply: '451 4.3.0 local error' }, storm);
  stage.sink.misbehave('rcpt', { reply: '450 4.2.1 mailbox busy' }, storm);
  stage.sink.misbehave('data', { reply: '452 4.3.1 no space' }, storm);
  stage.sink.misbehave('dot', { reply: '451 4.3.0 queue file write error' }, storm);
  stage.sink.misbehave('rcpt', { reply: '550 5.7.1 policy' }, { to: /^m\d*7@/u, times: 50 });
  stage.sink.misbehave('dot', { reply: '554 5.6.0 content' }, { to: /^m\d*8@/u, times: 50 });
  const mailing = await stage.mail('refused');
  const account = await stage.settle(mailing);
  await expectExactlyOnce(stage, account);
  expect(account).toMatchObject({ failed: 100, sent: 2140 });
});

it('one of several recipients refused: the others have their mail, and it alone is tried again', async () => {
  // Meanwhile other mail is answered slowly, and the line is slow and narrow.
  stage.sink.misbehave('dot', { delayMs: 2000 }, { to: /^m/u, times: 5 });
  stage.sink.misbehave('rcpt', { tarpitMs: 50 }, { to: /^m/u, times: 5 });
  stage.smtp.latencyMs = 5;
  stage.smtp.bytesPerSecond = 1_000_000;
  const later = stage.sink.misbehave(
    'rcpt',
    { reply: '450 4.2.1 busy' },
    { to: /^cc/u, times: 15 },
  );
  stage.sink.misbehave('rcpt', { reply: '550 5.7.1 policy' }, { to: /^bcc/u, times: 10 });
  const mailing = await stage.mail('partial');
  const account = await stage.settle(mailing);
  await expectExactlyOnce(stage, account);
  expect(later.hits).toBe(15);
  expect(account).toMatchObject({ failed: 10, sent: 2230 });
});

it('connections refused for a while delay', async () => {
  await stage.smtp.refuse();
  const mailing = await stage.mail('unreachable');
  await until('the mail server to have been tried again and again', async () => {
    const { rows } = await stage.pool.query(
      'select count(*)::integer as tried from messages where attempts >= 2',
    );
    return rows[0].tried >= 20;
  });
  await stage.smtp.accept();
  await expectExactlyOnce(stage, await stage.settle(mailing));
});

it('accepted without saying so, policy retry: sent once more, unknown again stays unknown', async () => {
  const options = { to: /^(m\d*9|to\d*[1-9])@/u, onceEach: true, times: 60 };
  const once = stage.sink.misbehave('dot', 'vanish', options);
  // Three addresses that are never answered.
  stage.sink.misbehave('dot', 'vanish', { to: /^(m1|m2|to10)@/u });
  const mailing = await stage.mail('vanished');
  const account = await stage.settle(mailing);
  await expectNothingLost(stage, account);
  expect(once.hits).toBe(60);
  // The single mail has a cc and a bcc.
  expect(account).toMatchObject({ unknown: 5, duplicates: 60 + 5 });
});

it('accepted without saying so, policy hold: stays unknown, never twice', async () => {
  const fault = stage.sink.misbehave('dot', 'vanish', { rate: 0.1, times: 60 });
  const mailing = await stage.mail('held', { policy: 'hold' });
  const account = await stage.settle(mailing);
  await expectNothingLost(stage, account);
  expect(fault.hits).toBe(60);
  expect(account.duplicates).toBe(0);
  expect(account.unknown).toBeGreaterThanOrEqual(60);
  // What was unknown stays so; of a single mail the recipients whose answer was lost, each its own.
  const { rows } = await stage.pool.query(
    `select count(*)::integer as changed from messages m
     where (m.send_id = $1 or m.id = any ($2)) and m.was_unknown and m.state <> 'unknown'
       and not exists (
         select from message_recipients r where r.message_id = m.id and r.state = 'unknown')`,
    [mailing.sendId, mailing.emailIds],
  );
  expect(rows[0].changed).toBe(0);
});
