// A send to a list of any size, drained by a worker process: the same story small in CI and at full
// size in `npm run test:large`.
import { expect } from 'vitest';
import { scoreSend, someMembers, type Harness } from './harness.ts';
import { startWorkerProcess } from './processes.ts';

const BATCH = 10_000;

/** Members m1… of `list`, in bulk calls. */
export async function fillList({ api }: Harness, list: string, count: number): Promise<void> {
  const members = someMembers(count);
  for (let at = 0; at < count; at += BATCH) {
    const { status } = await api('POST', `/api/recipient-lists/${list}/members/bulk-upsert`, {
      members: members.slice(at, at + BATCH),
    });
    expect(status).toBe(200);
  }
}

/** Triggers, drains and checks; returns the worker's peak memory in MiB. */
export async function drainListOf(h: Harness, members: number): Promise<number> {
  h.sink.keepsBodies = false;
  const list = `of-${members}`;
  await fillList(h, list, members);
  const before = h.sink.accepted.length;
  const { body } = await h.api(
    'POST',
    `/api/recipient-lists/${list}/send`,
    scoreSend({ send_key: list }),
  );
  const worker = startWorkerProcess({ DATABASE_URL: h.database.url, SMTP_URL: h.sink.url });
  let peak = 0;
  const done = await h.waitFor(
    body.send.id,
    async (send) => {
      peak = Math.max(peak, await worker.memory());
      return send.completed_at !== null;
    },
    3_600_000,
  );
  expect(await worker.stop()).toBe(0);
  expect(done.counts).toEqual({
    intended: members,
    queued: 0,
    sent: members,
    failed: 0,
    skipped: 0,
    unknown: 0,
  });
  expect(h.sink.accepted.length - before).toBe(members);
  return peak;
}
