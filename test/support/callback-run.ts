// A send whose contexts come from a provider that fails in every way, with a worker killed in the middle:
// the same story small in CI and at full size in `npm run test:large`.
import { expect } from 'vitest';
import { MOST_FETCHES } from '../../src/queue.ts';
import { ContextProvider, type Plan } from './context-provider.ts';
import type { Harness } from './harness.ts';
import { scoreSend } from './harness.ts';
import { fillList } from './list-of.ts';
import { startWorkerProcess } from './processes.ts';
import { until } from './until.ts';

const OMITTED = 7;
const MISFIT = 11;

const numberOf = (key: string) => Number(key.slice(1));
const keysWhere = (keys: string[], divisor: number) =>
  keys.filter((key) => numberOf(key) % divisor === 0);

/** By the number of the call: most go wrong at first, two for good, two for some members. */
const plan: Plan = ({ chunk, recipients }, timesSeen) => {
  const keys = recipients.map((one) => one.source_object_key);
  switch (chunk % 10) {
    case 1:
      return timesSeen === 1 ? 'timeout' : 'ok';
    case 2:
      return timesSeen <= 2 ? { status: 500 } : 'ok';
    case 3:
      return timesSeen === 1 ? { status: 429, headers: { 'retry-after': '1' } } : 'ok';
    case 4:
      return timesSeen === 1 ? 'reset' : 'ok';
    case 5:
      return { status: 404 };
    case 6:
      return 'garbage';
    case 7:
      return { omit: keysWhere(keys, OMITTED) };
    case 8:
      return { misfit: keysWhere(keys, MISFIT) };
    default:
      return 'ok';
  }
};

function expectedOf(key: string, chunk: number): string {
  const number = numberOf(key);
  if (chunk % 10 === 5) return 'context_missing';
  if (chunk % 10 === 6) return 'context_invalid';
  if (chunk % 10 === 7 && number % OMITTED === 0) return 'context_missing';
  if (chunk % 10 === 8 && number % MISFIT === 0) return 'context_invalid';
  return 'sent';
}

const TIMING = {
  CALLBACK_ALLOW: '127.0.0.0/8',
  CALLBACK_TIMEOUT_SECONDS: '1',
  RETRY_URGENT_DELAYS: '0.2',
  RETRY_DELAYS: '0.2',
  HEARTBEAT_SECONDS: '0.3',
  DEAD_AFTER_SECONDS: '2',
};

export async function expectCallbackRun(
  h: Harness,
  { members, chunkSize }: { members: number; chunkSize: number },
): Promise<void> {
  h.sink.keepsBodies = false;
  const { rows } = await h.database.pool.query('select callback_secret as secret from clients');
  const provider = await new ContextProvider({
    secret: rows[0].secret,
    plan,
    contextOf: ({ source_object_key }) => ({ name: source_object_key, score: 1 }),
  }).start();
  try {
    await fillList(h, 'l', members);
    const { status, body } = await h.api(
      'POST',
      '/api/recipient-lists/l/send',
      scoreSend({ context_callback: { url: provider.url, chunk_size: chunkSize } }),
    );
    expect(status).toBe(202);
    const id: string = body.send.id;
    const env = { DATABASE_URL: h.database.url, SMTP_URL: h.sink.url, ...TIMING };
    const first = startWorkerProcess(env);
    await until(
      'half of the calls',
      () => provider.ids.length >= members / chunkSize / 2 && h.sink.accepted.length > 0,
      600_000,
    );
    await first.kill();
    const second = startWorkerProcess(env);
    const done = await h.waitFor(id, (send) => send.completed_at !== null, 3_600_000);
    expect(await second.stop()).toBe(0);
    expect(provider.refused).toBe(0);
    expect(provider.mostAtOnce).toBeLessThanOrEqual(MOST_FETCHES);
    await expectOutcomes(h, id, provider, members);
    expect(done.counts).toMatchObject({ intended: members, queued: 0, skipped: 0 });
  } finally {
    await provider.stop();
  }
}

async function expectOutcomes(
  h: Harness,
  id: string,
  provider: ContextProvider,
  members: number,
): Promise<void> {
  const { rows } = await h.database.pool.query(
    `select m.source_object_key as key, m.state, m.reason, m.was_unknown, f.context
     from messages m left join fetched_contexts f using (client_id, send_id, position)
     where m.send_id = $1`,
    [id],
  );
  expect(rows).toHaveLength(members);
  const chunks = new Map(
    provider.journal.flatMap(({ keys, chunk }) => keys.map((key) => [key, chunk] as const)),
  );
  const mailed = h.sink.countByRecipient();
  const wrong = rows.filter(({ key, state, reason, was_unknown, context }) => {
    const expected = expectedOf(key, chunks.get(key)!);
    if (expected !== 'sent') return state !== 'failed' || reason !== expected || context !== null;
    const copies = mailed.get(`${key}@list.example`) ?? 0;
    const isRight = state === 'sent' || (state === 'unknown' && was_unknown);
    return !isRight || context.name !== key || (was_unknown ? copies > 2 : copies !== 1);
  });
  expect(wrong.slice(0, 5)).toEqual([]);
  // Only what the killed worker had asked for and not stored is answered twice.
  const twice = provider.ids.filter((one) => provider.countOf(one).answered > 1);
  expect(twice.length).toBeLessThanOrEqual(MOST_FETCHES);
}
