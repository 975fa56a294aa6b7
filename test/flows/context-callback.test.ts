// Personal contexts fetched from the client by workers, in chunks.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ContextProvider } from '../support/context-provider.ts';
import { CALLBACK, FAST, scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { until } from '../support/until.ts';

const h = useHarness();
let provider: ContextProvider;

beforeEach(async () => {
  const { body } = await h.api('GET', '/api/client/context-callback');
  provider = await new ContextProvider({
    secret: body.context_callback.secret,
    contextOf: ({ source_object_key }) => ({ name: `Dear ${source_object_key}`, score: 3 }),
  }).start();
});

afterEach(() => provider.stop());

function trigger(members: number, callback: Record<string, unknown> = {}, more = {}) {
  return triggerTo(someMembers(members), callback, more);
}

async function triggerTo(members: unknown[], callback: Record<string, unknown>, more = {}) {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members });
  const { status, body } = await h.api(
    'POST',
    '/api/recipient-lists/l/send',
    scoreSend({ context_callback: { url: provider.url, ...callback }, ...more }),
  );
  expect(status).toBe(202);
  return body.send.id as string;
}

async function messagesOf(id: string) {
  const { body } = await h.api('GET', `/api/sends/${id}/messages?limit=1000`);
  return body.messages as { state: string; reason: string | null; last_reply: string | null }[];
}

const reasonsOf = async (id: string) => [
  ...new Set((await messagesOf(id)).map(({ state, reason }) => `${state} ${reason}`)),
];

describe('a send by callback', () => {
  it('asks in calls of chunk_size, each once, and mails what it got', async () => {
    const id = await trigger(5, { chunk_size: 2 });
    const done = await h.drain(id);
    expect(done).toMatchObject({ state: 'completed', counts: { sent: 5 } });
    expect(provider.journal.map(({ chunk, keys }) => [chunk, keys.length])).toEqual([
      [1, 2],
      [2, 2],
      [3, 1],
    ]);
    expect(provider.ids).toHaveLength(3);
    expect(new Set(provider.countByKey().values())).toEqual(new Set([1]));
    expect((await h.sink.mailTo('m4@list.example')).text).toContain('Dear m4');
  });

  it.each([
    [51, 1],
    [601, 499],
    [1001, 1000],
  ])('%d members in calls of %d', async (members, chunkSize) => {
    const id = await trigger(members, { chunk_size: chunkSize });
    expect((await h.drain(id)).counts.sent).toBe(members);
    expect(provider.journal).toHaveLength(Math.ceil(members / chunkSize));
    expect(new Set(provider.countByKey().values())).toEqual(new Set([1]));
  });

  it('takes the URL and the secret of the client where it names none', async () => {
    const secret = `whsec_${Buffer.from('a secret of 32 characters length').toString('base64')}`;
    await h.api('PUT', '/api/client/context-callback', { url: provider.url, secret });
    provider.secret = secret;
    const id = await trigger(1, { url: null });
    expect((await h.drain(id)).counts.sent).toBe(1);
    expect(provider.refused).toBe(0);
  });

  it('asks only for members that may be mailed', async () => {
    await h.api('PUT', '/api/suppressions/m1@list.example', { reason: 'complaint' });
    const [first, second, third] = someMembers(3);
    const members = [first, { ...second, consent: 'pending' }, third];
    const id = await triggerTo(members, {}, { requires_consent: true });
    const done = await h.drain(id);
    expect(done.skipped_by_reason).toEqual({ complaint: 1, consent_pending: 1 });
    expect([...provider.countByKey().keys()]).toEqual(['m3']);
  });

  it('does not call where nobody may be mailed', async () => {
    await h.api('PUT', '/api/suppressions/m1@list.example', { reason: 'manual' });
    const id = await trigger(1);
    expect((await h.drain(id)).skipped_by_reason).toEqual({ suppressed: 1 });
    expect(provider.journal).toHaveLength(0);
  });

  it('suppressed while the call is under way: skipped, and its context is not kept', async () => {
    provider.contextOf = ({ source_object_key }) => ({ name: source_object_key });
    const gate = Promise.withResolvers<void>();
    provider.plan = () => {
      void h
        .api('PUT', '/api/suppressions/m1@list.example', { reason: 'manual' })
        .then(() => gate.resolve());
      return { status: 503 };
    };
    const id = await trigger(2);
    await h.startWorker();
    await gate.promise;
    provider.plan = () => 'ok';
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts).toMatchObject({ sent: 1, skipped: 1 });
    const { rows } = await h.database.pool.query(
      'select count(*)::integer as n from fetched_contexts',
    );
    expect(rows[0].n).toBe(1);
  });

  it('is replayed as any other', async () => {
    await trigger(1);
    const again = await h.api(
      'POST',
      '/api/recipient-lists/l/send',
      scoreSend({ context_callback: { url: provider.url } }),
    );
    expect(again).toMatchObject({ status: 200, body: { replayed: true } });
  });
});

describe('a provider in trouble', () => {
  it.each([
    ['404', { status: 404 } as const, 'failed context_missing', 'the callback answered 404'],
    ['a redirect', { status: 302, headers: { location: '/' } }, 'failed context_missing', '302'],
    ['no JSON', 'garbage' as const, 'failed context_invalid', 'not JSON'],
    ['an array', { status: 200, body: '[]' }, 'failed context_invalid', '"contexts"'],
    ['no contexts', { status: 200, body: '{}' }, 'failed context_invalid', '"contexts"'],
    ['too much', 'huge' as const, 'failed context_invalid', 'more than'],
  ])('%s fails the members of the call, and no others', async (_, conduct, reason, detail) => {
    provider.plan = ({ chunk }) => (chunk === 1 ? conduct : 'ok');
    const id = await trigger(4, { chunk_size: 2 });
    const done = await h.drain(id);
    expect(done.counts).toMatchObject({ sent: 2, failed: 2 });
    expect((await reasonsOf(id)).sort()).toEqual([reason, 'sent null']);
    const failed = (await messagesOf(id)).find((one) => one.state === 'failed');
    expect(failed!.last_reply).toContain(detail);
  });

  it.each([
    ['number', { name: 17 }, 'name must be a string'],
    ['unknown field', { nmae: 'x' }, 'nmae is not a known field'],
    ['NUL', { name: 'a\0b' }, 'NUL'],
    ['too large', { name: 'a'.repeat(300_000) }, '256 KiB'],
    ['no object', 'text', 'must be an object'],
    [
      'nested too deep',
      JSON.parse(`{"name":${'{"a":'.repeat(500)}1${'}'.repeat(500)}}`),
      'nested at most',
    ],
    ['__proto__', JSON.parse('{"__proto__": {"name": "x"}}'), '__proto__'],
  ])('a context that does not fit (%s) fails its member', async (_, context, detail) => {
    provider.plan = () => ({ misfit: ['m1'], context });
    const id = await trigger(2);
    const done = await h.drain(id);
    expect(done.counts).toMatchObject({ sent: 1, failed: 1 });
    const failed = (await messagesOf(id)).find((one) => one.state === 'failed');
    expect(failed).toMatchObject({ reason: 'context_invalid' });
    expect(failed!.last_reply).toContain(detail);
  });

  it('keys such as constructor are members like others', async () => {
    const keys = ['constructor', 'toString', 'hasOwnProperty'];
    provider.plan = () => ({ omit: ['toString'] });
    const members = keys.map((key, at) => ({
      source_object_key: key,
      email: `k${at}@list.example`,
    }));
    const done = await h.drain(await triggerTo(members, {}));
    expect(done.counts).toMatchObject({ sent: 2, failed: 1 });
  });

  it('is asked again, by the same id, until it answers', async () => {
    provider.plan = (_, timesSeen) =>
      (['timeout', 'reset', { status: 500 }, { status: 408 }] as const)[timesSeen - 1] ?? 'ok';
    const id = await trigger(2);
    await h.startWorker({
      callback: { ...CALLBACK, timeoutMs: 200 },
      timing: { ...FAST, retry: { ...FAST.retry, window: 60 } },
    });
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.sent).toBe(2);
    expect(provider.ids).toHaveLength(1);
    expect(provider.journal).toHaveLength(5);
  });

  it('that wants to be left alone is left alone: all calls of the send wait', async () => {
    provider.plan = () => ({ status: 429, headers: { 'retry-after': '3600' } });
    const id = await trigger(1500);
    await h.startWorker();
    await until('the first call', () => provider.journal.length > 0);
    await until('all to wait', async () => {
      const { rows } = await h.database.pool.query(
        `select count(*)::integer as waiting from send_chunks
         where leased_by is null and next_attempt_at > now() + interval '50 minutes'`,
      );
      return rows[0].waiting === 3;
    });
    expect(provider.journal.length).toBeLessThanOrEqual(3);
    provider.plan = () => 'ok';
    await h.database.pool.query('update send_chunks set next_attempt_at = now()');
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.sent).toBe(1500);
  });

  it('for longer than the retry window has failed its members', async () => {
    provider.plan = () => ({ status: 500 });
    const id = await trigger(2);
    await h.startWorker({ timing: { ...FAST, retry: { ...FAST.retry, window: 0.3 } } });
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.failed).toBe(2);
    expect(await reasonsOf(id)).toEqual(['failed context_missing']);
  });

  it('that fails now and then is not put off for longer and longer', async () => {
    provider.plan = (_, timesSeen) => (timesSeen === 1 ? { status: 503 } : 'ok');
    const id = await trigger(5, { chunk_size: 1 });
    const retry = { ...FAST.retry, urgent: [0.05], delays: [3600], window: 7200 };
    await h.startWorker({ timing: { ...FAST, retry } });
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.sent).toBe(5);
  });

  it('is never called by more than four at once', async () => {
    provider.plan = (_, timesSeen) => (timesSeen === 1 ? 'timeout' : { status: 404 });
    const id = await trigger(4000);
    await h.startWorker({ callback: { ...CALLBACK, timeoutMs: 300 } });
    await h.startWorker({ callback: { ...CALLBACK, timeoutMs: 300 } });
    const done = await h.waitFor(id, (send) => send.completed_at !== null, 60_000);
    expect(done.counts.failed).toBe(4000);
    expect(provider.mostAtOnce).toBeLessThanOrEqual(4);
  });
});

describe('control of a send by callback', () => {
  it('retry-failed fetches missing contexts again, and only those', async () => {
    provider.plan = () => ({ omit: ['m2'] });
    const id = await trigger(600);
    expect((await h.drain(id)).counts).toMatchObject({ sent: 599, failed: 1 });
    provider.plan = () => 'ok';
    const { body } = await h.api('POST', `/api/sends/${id}/retry-failed`);
    expect(body.retried).toBe(1);
    const done = await h.drain(id);
    expect(done).toMatchObject({ state: 'completed', counts: { sent: 600, failed: 0 } });
    expect(provider.countByKey().get('m2')).toBe(2);
    expect(provider.countByKey().get('m1')).toBe(1);
    expect(h.sink.accepted).toHaveLength(600);
  });

  it('retry-failed while later contexts are being fetched', async () => {
    const asked = Promise.withResolvers<void>();
    provider.plan = ({ chunk }, timesSeen) => {
      if (chunk === 1 && timesSeen === 1) return { omit: ['m2'] };
      if (chunk !== 2 || timesSeen > 1) return 'ok';
      asked.resolve();
      return 'timeout';
    };
    const id = await trigger(6, { chunk_size: 2 });
    await h.startWorker({
      callback: { ...CALLBACK, timeoutMs: 1000 },
      timing: { ...FAST, retry: { ...FAST.retry, window: 60 } },
    });
    await asked.promise;
    const { body } = await h.api('POST', `/api/sends/${id}/retry-failed`);
    expect(body.retried).toBe(1);
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.sent).toBe(6);
  });

  it('retry-failed while the last call is answered', async () => {
    // As the moment between storing the last page and finishing the chunk, again and again.
    provider.plan = (_, timesSeen) => (timesSeen < 4 ? { omit: ['m2'] } : 'ok');
    const id = await trigger(2);
    await h.startWorker({ timing: { ...FAST, retry: { ...FAST.retry, window: 60 } } });
    const done = await h.waitFor(id, async (send) => {
      if (send.counts.failed > 0) await h.api('POST', `/api/sends/${id}/retry-failed`);
      return send.completed_at !== null && send.counts.sent === 2;
    });
    expect(done.counts.sent).toBe(2);
  });

  it('missing again fails again', async () => {
    provider.plan = () => ({ omit: ['m2'] });
    const id = await trigger(2);
    await h.drain(id);
    await h.api('POST', `/api/sends/${id}/retry-failed`);
    const done = await h.drain(id);
    expect(done.counts).toMatchObject({ sent: 1, failed: 1 });
  });

  it('cancel ends the asking', async () => {
    provider.plan = () => ({ status: 500 });
    const id = await trigger(1200);
    await h.startWorker({ timing: { ...FAST, retry: { ...FAST.retry, window: 60 } } });
    await until('some calls', () => provider.journal.length > 2);
    await h.api('POST', `/api/sends/${id}/cancel`);
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.skipped_by_reason).toEqual({ cancelled: 1200 });
  });

  it.each(['cancel', 'pause'])('%s stops the calls of a chunk, too', async (action) => {
    const gate = Promise.withResolvers<void>();
    provider.contextOf = () => ({ name: 'x' });
    const id = await trigger(300, { chunk_size: 1 });
    let controlled: Promise<number> | undefined;
    provider.plan = () => {
      controlled ??= h.api('POST', `/api/sends/${id}/${action}`).then(() => {
        gate.resolve();
        return provider.journal.length;
      });
      return 'ok';
    };
    await h.startWorker();
    await gate.promise;
    const asked = await controlled!;
    await until('nothing to be leased', async () => {
      const { rows } = await h.database.pool.query(
        'select from send_chunks where leased_by is not null',
      );
      return rows.length === 0;
    });
    expect(provider.journal.length - asked).toBeLessThanOrEqual(1);
    await h.api('POST', `/api/sends/${id}/cancel`);
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.skipped + done.counts.sent).toBe(300);
  });

  it('cancelled during a call that fails, it is closed at once, not after the pause', async () => {
    const asked = Promise.withResolvers<void>();
    provider.plan = () => {
      asked.resolve();
      return 'timeout';
    };
    const id = await trigger(2);
    await h.startWorker({
      callback: { ...CALLBACK, timeoutMs: 500 },
      timing: { ...FAST, retry: { ...FAST.retry, urgent: [3600], window: 7200 } },
    });
    await asked.promise;
    await h.api('POST', `/api/sends/${id}/cancel`);
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.skipped_by_reason).toEqual({ cancelled: 2 });
  });

  it('a worker that stops cuts its calls, and the next one makes them at once', async () => {
    const asked = Promise.withResolvers<void>();
    provider.plan = (_, timesSeen) => {
      asked.resolve();
      return timesSeen === 1 ? 'timeout' : 'ok';
    };
    const id = await trigger(2);
    const first = await h.startWorker({
      timing: { ...FAST, retry: { ...FAST.retry, urgent: [3600], window: 7200 } },
    });
    await asked.promise;
    await first.stop();
    expect((await h.drain(id)).counts.sent).toBe(2);
  });

  it('pause holds it, resume lets it go on', async () => {
    const id = await trigger(3);
    await h.api('POST', `/api/sends/${id}/pause`);
    await h.startWorker();
    await h.database.pool.query("select graphile_worker.add_job('reconcile')");
    await until('upkeep to have run', async () => {
      const { rows } = await h.database.pool.query(
        'select count(*)::integer as n from graphile_worker.jobs',
      );
      return rows[0].n === 0;
    });
    expect(provider.journal).toHaveLength(0);
    await h.api('POST', `/api/sends/${id}/resume`);
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.sent).toBe(3);
  });

  it('goes on where its job was deleted', async () => {
    const id = await trigger(3);
    await h.startWorker({ lanes: ['prepare'] });
    await until(
      'it to be cut',
      async () => (await h.api('GET', `/api/sends/${id}`)).body.send.state === 'sending',
    );
    await h.database.pool.query(
      'select graphile_worker.complete_jobs(array(select id from graphile_worker.jobs))',
    );
    await h.startWorker();
    await h.database.pool.query("select graphile_worker.add_job('reconcile')");
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.sent).toBe(3);
  });
});

describe('refused at the trigger', () => {
  const attempt = (context_callback: unknown, more = {}) =>
    h.api('POST', '/api/recipient-lists/l/send', scoreSend({ context_callback, ...more }));

  it.each([
    ['with recipient_context', {}, { recipient_context: {} }, 'context_callback'],
    ['chunk_size 0', { chunk_size: 0 }, {}, 'context_callback.chunk_size'],
    ['chunk_size 1001', { chunk_size: 1001 }, {}, 'context_callback.chunk_size'],
    ['chunk_size 1.5', { chunk_size: 1.5 }, {}, 'context_callback.chunk_size'],
    ['another scheme', { url: 'ftp://provider.example/' }, {}, 'context_callback.url'],
    ['a private address', { url: 'http://10.0.0.1/' }, {}, 'context_callback.url'],
    ['no URL', { url: 'x' }, {}, 'context_callback.url'],
    ['an unknown field', { uri: 'x' }, {}, 'context_callback.uri'],
    ['no object', [], {}, 'context_callback'],
  ])('%s', async (_, callback, more, path) => {
    await h.api('PUT', '/api/recipient-lists/l', {});
    const { status, body } = await attempt(callback, more);
    expect(status).toBe(400);
    expect(body.errors[0].path).toBe(path);
  });

  it('no URL anywhere', async () => {
    await h.api('PUT', '/api/recipient-lists/l', {});
    const { status, body } = await attempt({});
    expect([status, body.code]).toEqual([422, 'context_callback_not_configured']);
  });
});
