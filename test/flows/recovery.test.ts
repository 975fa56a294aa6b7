// Workers that die, and what others make of it. The full set of faults is in test/faults.
import { describe, expect, it } from 'vitest';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { startWorkerProcess } from '../support/processes.ts';
import { until } from '../support/until.ts';

const h = useHarness();

/** Of a worker process that is quickly missed. */
const environment = () => ({
  DATABASE_URL: h.database.url,
  SMTP_URL: h.sink.url,
  HEARTBEAT_SECONDS: '0.2',
  DEAD_AFTER_SECONDS: '2',
});

async function trigger(members: number, more: Record<string, unknown> = {}): Promise<string> {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
    members: someMembers(members),
  });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend({ ...more }));
  return body.send.id;
}

const newsletter = {
  template_key: 'course-newsletter',
  shared_context: { title: 'News', body: 'Hello' },
};

/** Starts a worker process and kills it while the mail server holds `held` answers back. */
async function killWithInHand(held: number): Promise<void> {
  const waiting: (() => void)[] = [];
  h.sink.onBody = () => new Promise((resolve) => waiting.push(() => resolve(undefined)));
  const { child } = startWorkerProcess(environment());
  await until('messages in hand', () => waiting.length >= held);
  child.kill('SIGKILL');
  h.sink.onBody = () => undefined;
  for (const answer of waiting) answer(); // accepted, and nobody is there to hear it
}

describe('a worker that was killed', () => {
  it('leaves unknown what it had in hand: sent once more where the template says so', async () => {
    const id = await trigger(100);
    await killWithInHand(10);
    await h.startWorker();
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts).toMatchObject({ sent: 100, unknown: 0 });
    const { rows } = await h.database.pool.query(
      `select c.email from messages m join contacts c on c.client_id = m.client_id and c.id = m.contact_id
       where was_unknown`,
    );
    const flagged = new Set(rows.map(({ email }) => email));
    const twice = [...h.sink.countByRecipient()].filter(([, count]) => count > 1);
    expect(twice.every(([address]) => flagged.has(address))).toBe(true);
    expect(h.sink.countByRecipient().size).toBe(100);
    const ids = h.sink.accepted.map(({ raw }) => /^Message-ID: (.*)$/imu.exec(raw.toString())?.[1]);
    expect(new Set(ids).size).toBe(100); // a second try has the same Message-ID
  });

  it('or held until somebody decides', async () => {
    const id = await trigger(100, newsletter);
    await killWithInHand(10);
    await h.startWorker();
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    expect(done.counts.sent + done.counts.unknown).toBe(100);
    expect(done.counts.unknown).toBeGreaterThanOrEqual(10);
    expect(Math.max(...h.sink.countByRecipient().values())).toBe(1);
  });
});

describe('what is in nobody’s hands though its row says so', () => {
  const cases: [string, object, object][] = [
    ['retry', {}, { sent: 10, unknown: 0 }],
    ['hold', newsletter, { sent: 7, unknown: 3 }],
  ];
  it.each(cases)('is settled by the next delivery of its chunk: %s', async (_, more, counts) => {
    const id = await trigger(10, { ...more });
    await h.drain(id);
    h.sink.accepted.length = 0;
    // As a worker that lost its chunk in the moment it was declared dead would leave it.
    await h.database.pool.query(
      `with w as (select id from workers limit 1),
       s as (update sends set state = 'sending', completed_at = null, open_chunks = 1 where id = $1),
       k as (update send_chunks set completed_at = null, sent = 7, next_attempt_at = now() where send_id = $1)
       update messages set state = 'sending', claimed_by = w.id, claimed_at = now(), settled_at = null
       from w where send_id = $1 and position <= 3`,
      [id],
    );
    const done = await h.drain(id);
    expect(done.counts).toMatchObject(counts);
    expect(h.sink.accepted).toHaveLength(done.counts.sent - 7);
  });

  it('a lease of a worker that is gone', async () => {
    const id = await trigger(10);
    await h.drain(id);
    h.sink.accepted.length = 0;
    await h.database.pool.query(
      `with s as (update sends set state = 'sending', completed_at = null, open_chunks = 1 where id = $1),
       k as (update send_chunks set completed_at = null, sent = 9, leased_by = (select id from workers where recovered_at is not null limit 1)
         where send_id = $1)
       update messages set state = 'queued', settled_at = null where send_id = $1 and position = 1`,
      [id],
    );
    await h.startWorker();
    await h.database.pool.query(`select graphile_worker.add_job('reconcile', '{}')`);
    await h.waitFor(id, (send) => send.completed_at !== null);
    expect(h.sink.accepted).toHaveLength(1);
  });
});

describe('a worker that gave no sign of life', () => {
  it('is fenced: it claims nothing, records nothing, and ends', async () => {
    const id = await trigger(500, newsletter);
    const first = startWorkerProcess(environment());
    await until('mail', () => h.sink.accepted.length > 20);
    first.child.kill('SIGSTOP');
    await h.startWorker();
    const done = await h.waitFor(id, (send) => send.completed_at !== null);
    const before = await stateOf(id);
    first.child.kill('SIGCONT');
    expect(await first.ended).toBe(1);
    expect(await stateOf(id)).toEqual(before);
    expect(Math.max(...h.sink.countByRecipient().values())).toBe(1);
    expect(done.counts.sent + done.counts.unknown).toBe(500);
  });

  async function stateOf(sendId: string) {
    const { rows } = await h.database.pool.query(
      'select position, state, attempts, last_reply from messages where send_id = $1 order by 1',
      [sendId],
    );
    return rows;
  }
});
