// What operators do: resolve what nobody knows, hold and resume all delivery, look at the queue, run
// several processes, stop them politely and less so.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { rootFile } from '../../src/root.ts';
import { anEmail, queueEmail, registerExampleTypes } from '../support/emails.ts';
import { FAST, scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { startWorkerProcess } from '../support/processes.ts';
import { until } from '../support/until.ts';

const h = useHarness();
const run = promisify(execFile);

async function rosterpost(...args: string[]): Promise<string> {
  const { stdout } = await run(
    process.execPath,
    ['--import', 'tsx', rootFile('src/cli.ts'), ...args],
    { cwd: rootFile(), env: { ...process.env, DATABASE_URL: h.database.url, LOG_LEVEL: 'error' } },
  );
  return stdout;
}

async function trigger(members: number, more: Record<string, unknown> = {}): Promise<string> {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
    members: someMembers(members),
  });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend(more));
  return body.send.id;
}

/** A newsletter (whose template holds what is unknown) of which the given members are unknown. */
async function sendWithUnknown(unknown: number): Promise<{ id: string; messages: string[] }> {
  const id = await trigger(5, {
    template_key: 'course-newsletter',
    shared_context: { title: 'News', body: 'Hello' },
  });
  await h.drain(id);
  // As recovery leaves them; how they come about is in test/faults.
  await h.database.pool.query(
    `with turned as (
       update messages set state = 'unknown', was_unknown = true
       where send_id = $1 and position <= $2 returning send_id)
     update send_chunks set sent = sent - $2, unknown = unknown + $2 where send_id = $1`,
    [id, unknown],
  );
  const { body } = await h.api('GET', `/api/sends/${id}/messages?state=unknown`);
  return { id, messages: body.messages.map((one: { id: string }) => one.id) };
}

const resolve = (message: string, outcome: string) =>
  h.api('POST', `/api/messages/${message}/resolve`, { outcome });

describe('resolving a message of which nobody knows', () => {
  it('as sent or failed changes the counts, once', async () => {
    const { id, messages } = await sendWithUnknown(2);
    const sent = await resolve(messages[0]!, 'sent');
    expect(sent.body.message).toMatchObject({ state: 'sent', was_unknown: true });
    const failed = await resolve(messages[1]!, 'failed');
    expect(failed.body.message).toMatchObject({ state: 'failed', reason: 'resolved' });
    const { body } = await h.api('GET', `/api/sends/${id}`);
    expect(body.send).toMatchObject({
      state: 'completed',
      counts: { intended: 5, sent: 4, failed: 1, unknown: 0 },
    });
    const again = await resolve(messages[0]!, 'failed');
    expect(again).toMatchObject({ status: 409, body: { code: 'message_not_unknown' } });
  });

  it('as to be sent again opens the send again, and mails that member alone', async () => {
    const { id, messages } = await sendWithUnknown(2);
    expect((await resolve(messages[1]!, 'resend')).body.message.state).toBe('queued');
    const opened = await h.api('GET', `/api/sends/${id}`);
    expect(opened.body.send).toMatchObject({ state: 'sending', completed_at: null });
    const before = h.sink.accepted.length;
    const done = await h.drain(id);
    expect(done.counts).toMatchObject({ sent: 4, unknown: 1, queued: 0 });
    expect(h.sink.accepted.slice(before).map(({ to }) => to[0])).toEqual(['m2@list.example']);
  });

  it('works for a single email, and for no other client', async () => {
    await registerExampleTypes(h);
    const { body } = await queueEmail(h, h.key, anEmail({ to_address: ['ada@x.example'] }));
    await h.database.pool.query(`
      with e as (update single_emails set queue_state = 'settled'),
        r as (update message_recipients set state = 'unknown', reason = 'worker_died')
      update messages set state = 'unknown', was_unknown = true, settled_at = now()`);
    const stranger = await h.newClient('other');
    const { status } = await stranger.api('POST', `/api/messages/${body.email_id}/resolve`, {
      outcome: 'sent',
    });
    expect(status).toBe(404);
    expect((await resolve(body.email_id, 'resend')).status).toBe(200);
    await h.startWorker();
    await until('the mail', () => h.sink.accepted.length === 1);
    await until('its status', async () => {
      const { body: read } = await h.api('GET', `/api/v1/emails/${body.email_id}`);
      return read.data.status === 'Sent';
    });
    expect((await resolve(body.email_id, 'sent')).status).toBe(409);
  });
});

describe('a pause', () => {
  it('holds everything, also what was queued before it, until it ends', async () => {
    await registerExampleTypes(h);
    expect(await rosterpost('pause', '--reason', 'restored')).toContain('paused since');
    const id = await trigger(20);
    for (const priority_level of ['1', '5']) {
      await queueEmail(h, h.key, anEmail({ to_address: ['ada@x.example'], priority_level }));
    }
    await h.startWorker();
    const jobs = await until('all jobs to have run in vain', async () => {
      const shown = await rosterpost('jobs');
      return shown.includes('Jobs: none') && shown;
    });
    expect(jobs).toContain('PAUSED');
    expect(jobs).toContain('restored');
    expect(jobs).toMatch(/single, high +due +1/u);
    expect(h.sink.accepted).toHaveLength(0);
    expect(await rosterpost('resume')).toContain('goes on');
    await h.waitFor(id, (send) => send.completed_at !== null);
    await until('the single emails', () => h.sink.countByRecipient().get('ada@x.example') === 2);
    expect(await rosterpost('resume')).toContain('was not paused');
  });
});

describe('worker processes', () => {
  const environment = () => ({ DATABASE_URL: h.database.url, SMTP_URL: h.sink.url });

  it('several at once share a send, are replaced where they die, and end together', async () => {
    const id = await trigger(1000);
    const workers = startWorkerProcess(environment(), ['--processes', '2']);
    const running = async () =>
      (
        await h.database.pool.query<{ pid: number }>(
          'select pid from workers where stopped_at is null order by id',
        )
      ).rows.map(({ pid }) => pid);
    await until('both to run', async () => (await running()).length === 2);
    const [killed] = await running();
    process.kill(killed!, 'SIGKILL');
    const done = await h.waitFor(id, (send) => send.completed_at !== null, 60_000);
    expect(done.counts).toMatchObject({ sent: 1000, unknown: 0 });
    await until('two to run again', async () => {
      const pids = await running();
      return pids.length === 2 && !pids.includes(killed!);
    });
    expect(await workers.stop()).toBe(0);
    expect(await running()).toEqual([]);
  });

  it('cut what a mail server does not answer, and record it', async () => {
    const id = await trigger(30, {
      template_key: 'course-newsletter',
      shared_context: { title: 'News', body: 'Hello' },
    });
    let held = 0;
    h.sink.onBody = () => {
      held += 1;
      return new Promise(() => undefined); // for ever
    };
    const worker = await h.startWorker({ timing: { ...FAST, shutdownGraceMs: 100 } });
    const { pool } = h.database;
    const inHand = async () =>
      (await pool.query("select count(*)::integer as n from messages where state = 'sending'"))
        .rows[0].n as number;
    await until('messages in hand', () => held === 20);
    await worker.stop();
    expect(await inHand()).toBe(0);
    const { body } = await h.api('GET', `/api/sends/${id}`);
    expect(body.send.counts.unknown).toBe(20);
    expect(body.send.counts.queued + body.send.counts.unknown).toBe(30);
    h.sink.onBody = () => undefined;
    await h.drain(id);
  });
});
