// Delivery of single emails: recipient by recipient, by priority, whatever else runs.
import { beforeEach, describe, expect, it } from 'vitest';
import { anEmail, queueEmail, registerExampleTypes, type FormFields } from '../support/emails.ts';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { Reply } from '../support/smtp-sink.ts';
import { until } from '../support/until.ts';

const h = useHarness();

beforeEach(() => registerExampleTypes(h));

async function queue(more: FormFields = {}): Promise<string> {
  const { status, body } = await queueEmail(h, h.key, anEmail(more));
  expect(status).toBe(201);
  return body.email_id;
}

const read = async (id: string) => (await h.api('GET', `/api/v1/emails/${id}`)).body.data;

const settled = (id: string) =>
  until(`email ${id} to be settled`, async () => {
    const email = await read(id);
    return email.status !== 'Pending' && email;
  });

const recipients = (email: {
  recipients: { email: string; status: string; reason: string | null }[];
}) => Object.fromEntries(email.recipients.map((one) => [one.email, one.reason ?? one.status]));

describe('one SMTP transaction', () => {
  it('records what each recipient got, and suppresses who does not exist', async () => {
    h.sink.onRecipient = (address) =>
      address === 'gone@x.example'
        ? new Reply(550, '5.1.1 no such user')
        : address === 'policy@x.example'
          ? new Reply(554, '5.7.1 no')
          : undefined;
    const id = await queue({
      to_address: ['ok@x.example', 'gone@x.example'],
      cc_addresses: ['policy@x.example'],
      bcc_addresses: ['also@x.example'],
    });
    await h.startWorker();
    const email = await settled(id);
    expect(email).toMatchObject({ status: 'Sent', state: 'sent', attempts: 1 });
    expect(recipients(email)).toEqual({
      'ok@x.example': 'Sent',
      'gone@x.example': 'hard_bounce',
      'policy@x.example': 'refused_by_server',
      'also@x.example': 'Sent',
    });
    expect(h.sink.accepted.map((one) => one.to)).toEqual([['ok@x.example', 'also@x.example']]);
    const { body } = await h.api('GET', '/api/suppressions');
    expect(body.suppressions.map((one: { email: string }) => one.email)).toEqual([
      'gone@x.example',
    ]);
  });

  it('tries those that were put off again, alone', async () => {
    let tries = 0;
    h.sink.onRecipient = (address) =>
      address === 'slow@x.example' && ++tries < 3 ? new Reply(450, '4.2.1 later') : undefined;
    const id = await queue({
      to_address: ['fast@x.example', 'slow@x.example'],
      cc_addresses: ['cc@x.example'],
      bcc_addresses: ['bcc@x.example'],
    });
    await h.startWorker();
    const email = await settled(id);
    expect(email).toMatchObject({ status: 'Sent', attempts: 3 });
    expect(h.sink.accepted.map((one) => one.to)).toEqual([
      ['fast@x.example', 'cc@x.example', 'bcc@x.example'],
      ['slow@x.example'],
    ]);
    const headers = h.sink.accepted.map((one) => /^message-id: .*$/im.exec(one.raw.toString())![0]);
    expect(new Set(headers).size).toBe(1);
  });

  it('is sent where the last recipient that waited is suppressed meanwhile', async () => {
    h.sink.onRecipient = (address) =>
      address === 'busy@x.example' ? new Reply(451, '4.2.0 busy') : undefined;
    const id = await queue({
      to_address: ['ada@x.example', 'busy@x.example'],
      cc_addresses: ['c@x.example'],
    });
    await h.startWorker();
    await until('the first try', () => h.sink.accepted.length === 1);
    await h.api('PUT', '/api/suppressions/busy@x.example', { reason: 'manual' });
    const email = await settled(id);
    expect(email).toMatchObject({ status: 'Sent', reason: null });
    expect(h.sink.accepted).toHaveLength(1);
  });

  it('leaves suppressed addresses out, and reports them', async () => {
    await h.api('PUT', '/api/suppressions/bad@x.example', { reason: 'complaint' });
    const id = await queue({
      to_address: ['ok@x.example', 'bad@x.example'],
      cc_addresses: ['BAD@x.example'],
      bcc_addresses: ['b@x.example'],
    });
    await h.startWorker();
    const email = await settled(id);
    expect(recipients(email)).toEqual({
      'ok@x.example': 'Sent',
      'bad@x.example': 'complaint',
      'b@x.example': 'Sent',
    });
    expect(h.sink.accepted[0]!.to).toEqual(['ok@x.example', 'b@x.example']);
    expect(h.sink.accepted[0]!.raw.toString()).not.toContain('bad@x.example');
  });

  it('fails where nobody may be mailed, without a word to the mail server', async () => {
    await h.api('PUT', '/api/suppressions/bad@x.example', { reason: 'manual' });
    await h.api('PUT', '/api/v1/email-types/one', { to_addresses: ['bad@x.example'] });
    const id = await queue({ email_type: 'one' });
    await h.startWorker();
    expect(await settled(id)).toMatchObject({
      status: 'Failed',
      state: 'skipped',
      reason: 'suppressed',
      attempts: 0,
    });
    expect(h.sink.accepted).toHaveLength(0);
  });

  it('follows the consent rules for a marketing template', async () => {
    await h.api('PUT', '/api/contacts/pending@x.example', { consent: 'pending' });
    await h.api('PUT', '/api/contacts/out@x.example', { consent: 'unsubscribed' });
    await h.api('PUT', '/api/v1/email-types/news', {
      to_addresses: ['ok@x.example', 'pending@x.example', 'out@x.example'],
    });
    const email_data = JSON.stringify({ title: 'News', body: 'One.\n\nTwo.', name: 'Ann' });
    const marketing = await queue({
      email_type: 'news',
      email_template: 'course-newsletter',
      email_data,
    });
    const plain = await queue({ email_type: 'news' });
    await h.startWorker();
    expect(recipients(await settled(marketing))).toEqual({
      'ok@x.example': 'Sent',
      'pending@x.example': 'consent_pending',
      'out@x.example': 'unsubscribed',
    });
    expect(recipients(await settled(plain))).toEqual({
      'ok@x.example': 'Sent',
      'pending@x.example': 'Sent',
      'out@x.example': 'Sent',
    });
  });

  it('fails for good when the whole message is refused', async () => {
    h.sink.onBody = () => new Reply(554, '5.6.0 no');
    const id = await queue({ to_address: ['a@x.example'] });
    await h.startWorker();
    expect(await settled(id)).toMatchObject({
      status: 'Failed',
      reason: 'refused_by_server',
      last_reply: '554 5.6.0 no',
    });
  });
});

describe('priorities', () => {
  it('take high before normal before low, and within a lane by priority, then age', async () => {
    const order: string[] = [];
    h.sink.onBody = (message) => {
      order.push(message.to[0]!);
      return undefined;
    };
    const levels = [10, 3, 2, 3, 10, 2, 7];
    for (const [index, level] of levels.entries()) {
      await queue({
        priority_level: String(level),
        to_address: [`p${level}-${index}@x.example`],
        cc_addresses: ['c@x.example'],
      });
    }
    await h.startWorker({ singlesConnections: 1 });
    await until('all mails', () => order.length === levels.length);
    expect(order.map((address) => address.split('@')[0])).toEqual([
      'p2-2',
      'p2-5',
      'p3-1',
      'p3-3',
      'p7-6',
      'p10-0',
      'p10-4',
    ]);
  });

  it('let 20 high mails overtake a backlog of low ones', async () => {
    await fillBacklog(600);
    const seen: string[] = [];
    h.sink.onBody = (message) => {
      seen.push(message.to[0]!);
      return undefined;
    };
    const worker = await h.startWorker();
    await until('the backlog to drain', () => seen.length > 20);
    const before = seen.length;
    const ids: string[] = [];
    for (let n = 0; n < 20; n++)
      ids.push(await queue({ priority_level: '1', to_address: [`high-${n}@x.example`] }));
    await Promise.all(ids.map(settled));
    const low = seen.filter((address) => address.startsWith('low-')).length;
    expect(low).toBeLessThan(600);
    expect(seen.length).toBeGreaterThan(before);
    await worker.stop();
  });

  it('send a priority-1 mail at once while a list send drains', async () => {
    await h.api('POST', '/api/recipient-lists/big/members/bulk-upsert', {
      members: someMembers(5000),
    });
    const { body } = await h.api('POST', '/api/recipient-lists/big/send', scoreSend());
    await h.startWorker();
    await until('the send to be under way', () => h.sink.accepted.length > 20);
    const sentBefore = h.sink.accepted.length;
    const id = await queue({ priority_level: '1', to_address: ['urgent@x.example'] });
    await settled(id);
    const at = h.sink.accepted.findIndex((one) => one.to.includes('urgent@x.example'));
    expect(at - sentBefore).toBeLessThan(500); // a tenth of the send
    expect(body.send.counts.intended).toBe(5000);
  });

  /** Low-priority emails, stored as the API stores them, in one statement. */
  async function fillBacklog(count: number) {
    const id = await queue({
      priority_level: '5',
      to_address: ['low-0@x.example'],
      cc_addresses: ['c@x.example'],
    });
    await h.database.pool.query(
      `with made as (insert into messages (client_id) select client_id from messages, generate_series(1, $2::integer) where id = $1 returning client_id, id),
       emails as (insert into single_emails (client_id, message_id, email_type, subject, template_key, template_version, email_data,
         priority_level, requires_consent, on_unknown, sender_id, sender_email)
         select e.client_id, made.id, email_type, subject, template_key, template_version, email_data, priority_level, requires_consent, on_unknown, sender_id, sender_email
         from made, single_emails e where e.message_id = $1)
       insert into message_recipients (client_id, message_id, ordinal, kind, email, email_given)
       select client_id, id, 0, 'to', 'low-' || id || '@x.example', 'low-' || id || '@x.example' from made`,
      [id, count - 1],
    );
  }
});

describe('jobs', () => {
  it('are added again when an operator has deleted them', async () => {
    const high = await queue({ priority_level: '1', to_address: ['a@x.example'] });
    const low = await queue({ priority_level: '4', to_address: ['b@x.example'] });
    await h.database.pool.query('delete from graphile_worker._private_jobs');
    await h.startWorker();
    await h.database.pool.query(`select graphile_worker.add_job('reconcile', '{}')`);
    expect((await settled(high)).status).toBe('Sent');
    expect((await settled(low)).status).toBe('Sent');
  });

  it('do not deliver an email whose template version this worker lacks', async () => {
    const id = await queue({ to_address: ['a@x.example'] });
    const changed = new Map(h.templates);
    changed.set('default_template', { ...changed.get('default_template')!, version: 'another' });
    const worker = await h.startWorker({ templates: changed });
    await until('the job to have run', async () => {
      const { rows } = await h.database.pool.query(
        `select from graphile_worker.jobs where task_identifier = 'deliver_singles'`,
      );
      return rows.length === 0;
    });
    expect((await read(id)).status).toBe('Pending');
    await worker.stop();
    await h.database.pool.query(`select graphile_worker.add_job('reconcile', '{}')`);
    await h.startWorker();
    expect((await settled(id)).status).toBe('Sent');
  });
});
