// A job is only a wake-up: twice, late or never, it costs time and no mail.
import { expect, it } from 'vitest';
import { FAST, scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { Reply } from '../support/smtp-sink.ts';
import { queueEmail } from '../support/emails.ts';
import { until } from '../support/until.ts';

const h = useHarness();

async function trigger(members: number) {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
    members: someMembers(members),
  });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  return body.send.id as string;
}

/** Jobs without a key: as many as asked for, beside those that exist. */
async function addJobs(task: string, sendId: string, copies: number) {
  await h.database.pool.query(
    `select graphile_worker.add_job($1, json_build_object('client_id', k.client_id, 'send_id', k.send_id, 'chunk_no', k.chunk_no))
     from send_chunks k, generate_series(1, $3::integer) where k.send_id = $2`,
    [task, sendId, copies],
  );
}

it('sends nothing twice when every task runs three times over', async () => {
  const sendId = await trigger(1200);
  await h.database.pool.query(
    `select graphile_worker.add_job('expand_send', json_build_object('client_id', client_id, 'send_id', id))
     from sends, generate_series(1, 2)`,
  );
  const worker = await h.startWorker();
  for (const task of ['prepare_chunk', 'deliver_chunk']) {
    await until('chunks', async () => {
      const { rows } = await h.database.pool.query(
        'select count(*)::integer as chunks from send_chunks',
      );
      return rows[0].chunks === 3;
    });
    await addJobs(task, sendId, 3);
  }
  await h.waitFor(sendId, (send) => send.completed_at !== null);
  await addJobs('prepare_chunk', sendId, 2);
  await addJobs('deliver_chunk', sendId, 2);
  await until('no job to be left', async () => {
    const { rows } = await h.database.pool.query(
      'select count(*)::integer as jobs from graphile_worker.jobs',
    );
    return rows[0].jobs === 0;
  });
  await worker.stop();
  expect(h.sink.accepted).toHaveLength(1200);
  expect(h.sink.countByRecipient().size).toBe(1200);
});

it.each(['expand_send', 'prepare_chunk', 'deliver_chunk'])(
  'goes on after an operator has deleted the %s jobs',
  async (task) => {
    const sendId = await trigger(3);
    // Lanes are run until the doomed job exists, which is then deleted before anybody takes it.
    if (task !== 'expand_send') await runTask('expand_send');
    if (task === 'deliver_chunk') await runTask('prepare_chunk');
    const { rowCount } = await h.database.pool.query(
      `delete from graphile_worker._private_jobs where task_id = (select id from graphile_worker._private_tasks where identifier = $1)`,
      [task],
    );
    expect(rowCount).toBe(1);
    const worker = await h.startWorker();
    await h.database.pool.query(`select graphile_worker.add_job('reconcile', '{}')`);
    await h.waitFor(sendId, (send) => send.state === 'completed');
    await worker.stop();
    expect(h.sink.accepted).toHaveLength(3);
  },
);

it.each([
  [
    'that failed so often that it waits for hours',
    "run_at = now() + interval '1 day', attempts = 9",
  ],
  [
    'of a process that was killed before anybody knew it',
    "locked_at = now() - interval '2 minutes', locked_by = 'pool-x'",
  ],
  ['that has given up', 'attempts = max_attempts'],
])('goes on after a job %s', async (_, change) => {
  const sendId = await trigger(3);
  const { rowCount } = await h.database.pool.query(
    `update graphile_worker._private_jobs set ${change}`,
  );
  expect(rowCount).toBe(1);
  const worker = await h.startWorker();
  await until('the send to be finished', async () => {
    // As each minute by itself; what was freed is added by the next one.
    await h.database.pool.query(`select graphile_worker.add_job('reconcile', '{}')`);
    const { body } = await h.api('GET', `/api/sends/${sendId}`);
    return body.send.state === 'completed';
  });
  await worker.stop();
  expect(h.sink.accepted).toHaveLength(3);
});

it('goes on after jobs were taken by a living worker that was never told', async () => {
  const { pool } = h.database;
  await h.api('PUT', '/api/v1/email-types/note', { from_email: 'courses' });
  const sendId = await trigger(3);
  for (const priority_level of ['1', '5']) {
    const { status } = await queueEmail(h, h.key, {
      email_type: 'note',
      subject: 'Note',
      email_template: 'default_template',
      email_data: '{}',
      to_address: [`to${priority_level}@single.example`],
      priority_level,
    });
    expect(status).toBe(201);
  }
  await h.startWorker({ lanes: ['callback'] });
  const { rowCount } = await pool.query(
    `update graphile_worker._private_jobs set locked_at = now() - interval '30 seconds',
       locked_by = (select pool_ids[1] from workers)`,
  );
  expect(rowCount).toBe(3);
  await h.startWorker();
  await until('everything to be sent', async () => {
    await pool.query(`select graphile_worker.add_job('reconcile', '{}')`); // as each minute by itself
    const { body } = await h.api('GET', `/api/sends/${sendId}`);
    return body.send.state === 'completed' && h.sink.accepted.length === 5;
  });
});

/** Runs the one waiting job of a task, as the graphile-worker command line would. */
async function runTask(task: 'expand_send' | 'prepare_chunk') {
  const { expandSend } = await import('../../src/sends/expand.ts');
  const { prepareChunk } = await import('../../src/sends/prepare.ts');
  const { rows } = await h.database.pool.query(
    `delete from graphile_worker._private_jobs returning payload, id`,
  );
  expect(rows).toHaveLength(1);
  await h.database.db
    .transaction()
    .execute((trx) =>
      task === 'expand_send'
        ? expandSend(trx, rows[0].payload)
        : prepareChunk(trx, rows[0].payload),
    );
}

it('tries a message again that the server put off, and wakes a chunk once for all of them', async () => {
  const sendId = await trigger(40);
  const tries = new Map<string, number>();
  h.sink.onRecipient = (address) => {
    const count = (tries.get(address) ?? 0) + 1;
    tries.set(address, count);
    return count < 3 ? new Reply(450, '4.2.0 greylisted') : undefined;
  };
  const done = await h.drain(sendId);
  expect(done.counts).toMatchObject({ sent: 40, failed: 0 });
  expect([...tries.values()].every((count) => count === 3)).toBe(true);
  const { body } = await h.api('GET', `/api/sends/${sendId}/messages`);
  expect(body.messages.every((one: { attempts: number }) => one.attempts === 3)).toBe(true);
});

it('gives up a message when its retry window ends', async () => {
  const sendId = await trigger(2);
  h.sink.onRecipient = (address) =>
    address.startsWith('m1@') ? new Reply(451, '4.3.0 later') : undefined;
  const worker = await h.startWorker({
    timing: { ...FAST, retry: { ...FAST.retry, delays: [0.02], urgent: [], window: 0.2 } },
  });
  const done = await h.waitFor(sendId, (send) => send.completed_at !== null);
  await worker.stop();
  expect(done.counts).toMatchObject({ sent: 1, failed: 1 });
  const { body } = await h.api('GET', `/api/sends/${sendId}/messages?state=failed`);
  expect(body.messages[0]).toMatchObject({ reason: 'expired', last_reply: '451 4.3.0 later' });
});

it('keeps everything queued while the mail server is away, and shows what is wrong', async () => {
  const sendId = await trigger(3);
  const worker = await h.startWorker({ smtpUrl: 'smtp://127.0.0.1:1' });
  const message = await until('a try', async () => {
    const { body } = await h.api('GET', `/api/sends/${sendId}/messages`);
    return body.messages.find((one: { attempts: number }) => one.attempts > 0);
  });
  expect(message).toMatchObject({ state: 'queued', reason: 'connection_failed' });
  expect(message.last_reply).toContain('ECONNREFUSED');
  await worker.stop();
  expect((await h.drain(sendId)).counts).toMatchObject({ sent: 3 });
});

it('leaves the send queued when the worker has another version of the template', async () => {
  const sendId = await trigger(2);
  const changed = new Map(h.templates);
  const template = changed.get('homework-score-published')!;
  changed.set(template.key, { ...template, version: 'another' });
  const worker = await h.startWorker({ templates: changed });
  await until('the chunk to wait for its template', async () => {
    const { rows } = await h.database.pool.query(
      `select from send_chunks where next_attempt_at > now() + interval '30 seconds'`,
    );
    return rows.length === 1;
  });
  await worker.stop();
  expect((await h.api('GET', `/api/sends/${sendId}`)).body.send.counts).toMatchObject({
    queued: 2,
  });
  await h.database.pool.query('update send_chunks set next_attempt_at = now()');
  expect((await h.drain(sendId)).counts).toMatchObject({ sent: 2 });
});

it('stops in the middle of a send and leaves the rest for the next worker', async () => {
  const sendId = await trigger(600);
  const worker = await h.startWorker();
  await until('some mail', () => h.sink.accepted.length > 30);
  await worker.stop();
  const { rows } = await h.database.pool.query(
    `select count(*) filter (where state = 'sending')::integer as sending from messages`,
  );
  expect(rows[0].sending).toBe(0);
  expect(h.sink.accepted.length).toBeLessThan(600);
  const done = await h.drain(sendId);
  expect(done.counts).toMatchObject({ sent: 600, unknown: 0 });
  expect(h.sink.accepted).toHaveLength(600);
});

it('mails a small list while a large one is being sent', async () => {
  await h.api('POST', '/api/recipient-lists/big/members/bulk-upsert', {
    members: someMembers(5000),
  });
  const big = await h.api('POST', '/api/recipient-lists/big/send', scoreSend({ send_key: 'big' }));
  const worker = await h.startWorker();
  await until('the large send to be under way', () => h.sink.accepted.length > 50);
  await h.api('PUT', '/api/recipient-lists/small/members/1', { email: 'small@list.example' });
  const small = await h.api(
    'POST',
    '/api/recipient-lists/small/send',
    scoreSend({ send_key: 'small' }),
  );
  await h.waitFor(small.body.send.id, (send) => send.completed_at !== null);
  const { body } = await h.api('GET', `/api/sends/${big.body.send.id}`);
  expect(body.send.counts.queued).toBeGreaterThan(0);
  await worker.stop();
});
