// What a client does to its sends: schedule, let expire, pause, resume, cancel, try again. Always the law.
import { describe, expect, it } from 'vitest';
import { useHarness, scoreSend, someMembers, FAST } from '../support/harness.ts';
import { Reply } from '../support/smtp-sink.ts';
import { until } from '../support/until.ts';

const h = useHarness();

async function trigger(members: number, more: Record<string, unknown> = {}) {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
    members: someMembers(members),
  });
  const { status, body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend(more));
  expect(status).toBe(202);
  return body.send as { id: string; state: string };
}

const control = (id: string, action: string) => h.api('POST', `/api/sends/${id}/${action}`);
const read = async (id: string) => (await h.api('GET', `/api/sends/${id}`)).body.send;
const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString();
const later = () => new Reply(451, '4.3.0 later');

/** Lets 20 mails pass and holds the others at their last byte until it is called. */
function holdMail(): () => void {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  h.sink.onBody = () => (h.sink.accepted.length < 20 ? undefined : promise);
  return () => resolve(undefined);
}

describe('scheduled_at', () => {
  it('freezes the members at the trigger and begins when its time has come', async () => {
    const { id, state } = await trigger(3, { scheduled_at: inSeconds(3600) });
    expect(state).toBe('scheduled');
    expect(Date.parse((await read(id)).scheduled_at)).toBeGreaterThan(Date.now());
    await h.api('DELETE', '/api/recipient-lists/l/members/m1');
    await h.startWorker();
    await h.database.pool.query("update sends set scheduled_at = now() + interval '50 ms'");
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done).toMatchObject({ state: 'completed', counts: { intended: 3, sent: 3 } });
  });

  it('in the past begins at once', async () => {
    const { id, state } = await trigger(1, { scheduled_at: '2020-01-01T00:00:00+02:00' });
    expect(state).toBe('queued');
    expect((await h.drain(id)).counts.sent).toBe(1);
  });

  it.each([
    ['a date', '2026-02-01'],
    ['no offset', '2026-02-01T10:00:00'],
    ['a day that is not', '2026-02-31T10:00:00Z'],
    ['before 1970', '1969-12-31T23:59:59Z'],
    ['a number', 5],
  ])('refuses %s', async (_, scheduled_at) => {
    const { status, body } = await h.api(
      'POST',
      '/api/recipient-lists/l/send',
      scoreSend({ scheduled_at }),
    );
    expect(status).toBe(400);
    expect(body.errors[0].path).toBe('scheduled_at');
  });
});

describe('expires_at', () => {
  it('skips those that were never tried', async () => {
    const { id } = await trigger(1200, { expires_at: inSeconds(3600) });
    await h.database.pool.query("update sends set expires_at = now() + interval '1 ms'");
    const done = await h.drain(id);
    expect(done.state).toBe('completed');
    expect(done.skipped_by_reason).toEqual({ expired: 1200 });
    expect(h.sink.accepted).toHaveLength(0);
  });

  it('fails those that were tried', async () => {
    h.sink.onRecipient = later;
    const { id } = await trigger(3, { expires_at: inSeconds(3600) });
    await h.startWorker({
      timing: { ...FAST, retry: { ...FAST.retry, delays: [60], window: 3600 } },
    });
    await until('all to be tried', async () => {
      const { rows } = await h.database.pool.query(
        "select count(*)::integer as tried from messages where attempts = 1 and state = 'queued'",
      );
      return rows[0].tried === 3;
    });
    await h.database.pool.query("update sends set expires_at = now() + interval '1 ms'");
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts).toMatchObject({ failed: 3, skipped: 0 });
    const { body } = await h.api('GET', `/api/sends/${id}/messages`);
    expect(body.messages[0]).toMatchObject({ state: 'failed', reason: 'expired', attempts: 1 });
  });

  it('gives a message up whose next try would come too late', async () => {
    h.sink.onRecipient = later;
    const { id } = await trigger(1, { expires_at: inSeconds(1800) });
    await h.startWorker({
      timing: { ...FAST, retry: { ...FAST.retry, delays: [3600], window: 7200 } },
    });
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.failed).toBe(1);
  });

  it('ends a paused send and one that was never begun, too', async () => {
    const paused = await trigger(2, { send_key: 'p', expires_at: inSeconds(3600) });
    await control(paused.id, 'pause');
    const scheduled = await trigger(2, {
      send_key: 's',
      scheduled_at: inSeconds(1800),
      expires_at: inSeconds(3600),
    });
    await h.database.pool.query(
      "update sends set scheduled_at = scheduled_at - interval '2 h', expires_at = now() - interval '1 s'",
    );
    await h.startWorker();
    for (const { id } of [paused, scheduled]) {
      const done = await h.waitFor(id, (send) => send.completed_at !== null);
      expect(done.skipped_by_reason).toEqual({ expired: 2 });
      expect((await control(id, 'resume')).status).toBe(409);
    }
  });

  it('must be in the future and after scheduled_at, but for a replay', async () => {
    await h.api('PUT', '/api/recipient-lists/l', {});
    const past = await h.api(
      'POST',
      '/api/recipient-lists/l/send',
      scoreSend({ expires_at: inSeconds(-1) }),
    );
    expect(past).toMatchObject({ status: 400, body: { errors: [{ path: 'expires_at' }] } });
    const before = await h.api(
      'POST',
      '/api/recipient-lists/l/send',
      scoreSend({ scheduled_at: inSeconds(20), expires_at: inSeconds(10) }),
    );
    expect(before).toMatchObject({ status: 400, body: { errors: [{ path: 'expires_at' }] } });
    const expires_at = new Date(Date.now() + 300).toISOString();
    const request = scoreSend({ expires_at });
    const first = await h.api('POST', '/api/recipient-lists/l/send', request);
    expect(first.status).toBe(202);
    await until('it to be past', () => Date.now() > Date.parse(expires_at));
    const replay = await h.api('POST', '/api/recipient-lists/l/send', request);
    expect(replay).toMatchObject({ status: 200, body: { replayed: true } });
  });
});

describe('pause and resume', () => {
  it('hold a send in the middle and let it go on', async () => {
    const { id } = await trigger(1000);
    const letGo = holdMail();
    await h.startWorker();
    await until('some mail', () => h.sink.accepted.length >= 20);
    const paused = await control(id, 'pause');
    letGo();
    expect(paused).toMatchObject({ status: 200, body: { send: { state: 'paused' } } });
    await until('what is in hand to be finished', async () => {
      const { rows } = await h.database.pool.query(
        "select count(*)::integer as n from messages where state = 'sending'",
      );
      return rows[0].n === 0;
    });
    const held = await read(id);
    expect(held.counts.queued).toBeGreaterThan(0);
    await h.database.pool.query("select graphile_worker.add_job('reconcile')");
    await h.database.pool.query("select graphile_worker.add_job('wake_due')");
    await until('upkeep to have run', async () => {
      const { rows } = await h.database.pool.query(
        'select count(*)::integer as n from graphile_worker.jobs',
      );
      return rows[0].n === 0;
    });
    expect((await read(id)).counts).toEqual(held.counts);
    expect((await control(id, 'pause')).status).toBe(200);
    expect((await control(id, 'resume')).body.send.state).toBe('sending');
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done).toMatchObject({ state: 'completed', counts: { sent: 1000 } });
    expect(new Set(h.sink.countByRecipient().values())).toEqual(new Set([1]));
  });

  it('a scheduled send is scheduled again', async () => {
    const { id } = await trigger(1, { scheduled_at: inSeconds(3600) });
    expect((await control(id, 'pause')).body.send.state).toBe('paused');
    expect((await control(id, 'resume')).body.send.state).toBe('scheduled');
  });

  it('a completed send is over', async () => {
    const { id } = await trigger(1);
    await h.drain(id);
    for (const action of ['pause', 'resume', 'cancel']) {
      const { status, body } = await control(id, action);
      expect([status, body.code]).toEqual([409, 'send_is_over']);
    }
  });
});

describe('cancel', () => {
  it('before anything went out skips all', async () => {
    const { id } = await trigger(1200);
    const { body } = await control(id, 'cancel');
    expect(body.send).toMatchObject({
      state: 'cancelled',
      completed_at: null,
      counts: { queued: 1200 },
    });
    const done = await h.drain(id);
    expect(done).toMatchObject({ state: 'cancelled', counts: { skipped: 1200, sent: 0 } });
    expect(done.skipped_by_reason).toEqual({ cancelled: 1200 });
    expect(h.sink.accepted).toHaveLength(0);
  });

  it('in the middle: what went out stays, the rest is skipped', async () => {
    const { id } = await trigger(1000);
    const letGo = holdMail();
    await h.startWorker();
    await until('some mail', () => h.sink.accepted.length >= 20);
    const calls = await Promise.all(Array.from({ length: 5 }, () => control(id, 'cancel')));
    letGo();
    expect(calls.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.state).toBe('cancelled');
    expect(done.counts.sent).toBe(h.sink.accepted.length);
    expect(done.skipped_by_reason).toEqual({ cancelled: 1000 - done.counts.sent });
    expect((await control(id, 'resume')).status).toBe(409);
    expect((await control(id, 'retry-failed')).status).toBe(409);
  });

  it('follows while all delivery is paused, too', async () => {
    await h.database.pool.query("insert into delivery_pause (reason) values ('test')");
    const { id } = await trigger(2);
    await control(id, 'cancel');
    const done = await h.drain(id);
    expect(done.skipped_by_reason).toEqual({ cancelled: 2 });
    await h.database.pool.query('delete from delivery_pause');
  });

  it('what may have been delivered is unknown, not skipped', async () => {
    const { id } = await trigger(3);
    await h.drain(id);
    await h.database.pool.query(
      `update messages set state = 'queued', was_unknown = true, settled_at = null, reason = 'connection_lost' where position = 1;
       update messages set state = 'queued', settled_at = null where position = 2;
       update send_chunks set sent = sent - 2, completed_at = null;
       update sends set open_chunks = 1, completed_at = null, state = 'sending'`,
    );
    await control(id, 'cancel');
    const done = await h.drain(id);
    expect(done.counts).toMatchObject({ sent: 1, unknown: 1, skipped: 1 });
  });
});

describe('retry-failed', () => {
  it('tries again what was refused, but for addresses that do not exist', async () => {
    h.sink.onRecipient = (to) =>
      to.startsWith('m1@') ? new Reply(550, '5.1.1 no such user') : new Reply(550, '5.7.1 policy');
    const { id } = await trigger(600);
    const failed = await h.drain(id);
    expect(failed.counts).toMatchObject({ failed: 600 });
    h.sink.onRecipient = () => undefined;
    const calls = await Promise.all(Array.from({ length: 5 }, () => control(id, 'retry-failed')));
    expect(calls.reduce((sum, { body }) => sum + body.retried, 0)).toBe(599);
    expect(await read(id)).toMatchObject({
      state: 'sending',
      completed_at: null,
      counts: { queued: 599, failed: 1 },
    });
    const done = await h.drain(id);
    expect(done).toMatchObject({ state: 'completed', counts: { sent: 599, failed: 1 } });
    expect(h.sink.accepted).toHaveLength(599);
  });

  it('starts the retry window and the delays anew', async () => {
    h.sink.onRecipient = later;
    const { id } = await trigger(1);
    const impatient = await h.startWorker({
      timing: { ...FAST, retry: { ...FAST.retry, window: 0.5 } },
    });
    await h.waitFor(id, (send) => send.counts.failed === 1);
    await impatient.stop();
    await h.database.pool.query("update messages set created_at = created_at - interval '1 day'");
    let seen = 0;
    h.sink.onRecipient = () => (++seen < 3 ? later() : undefined);
    expect((await control(id, 'retry-failed')).body.retried).toBe(1);
    const done = await h.drain(id);
    expect(done.counts.sent).toBe(1);
  });

  it('finds nothing where nothing failed', async () => {
    const { id } = await trigger(1);
    await h.drain(id);
    const { status, body } = await control(id, 'retry-failed');
    expect([status, body.retried, body.send.state]).toEqual([200, 0, 'completed']);
  });
});

it('another client does not see them', async () => {
  const { id } = await trigger(1);
  const { api } = await h.newClient('other');
  for (const action of ['pause', 'resume', 'cancel', 'retry-failed']) {
    expect((await api('POST', `/api/sends/${id}/${action}`)).status).toBe(404);
  }
});
