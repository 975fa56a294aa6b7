// Who is not mailed, and when that is decided: when messages are made, and again at the last moment.
import { describe, expect, it } from 'vitest';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { Reply } from '../support/smtp-sink.ts';
import { until } from '../support/until.ts';

const h = useHarness();

const newsletter = (more: object = {}) => ({
  send_key: 'news:1',
  template_key: 'course-newsletter',
  shared_context: { title: 'What is new', body: 'First.\n\nSecond.' },
  ...more,
});

async function reasons(sendId: string): Promise<Record<string, string>> {
  const { body } = await h.api('GET', `/api/sends/${sendId}/messages?state=skipped`);
  return Object.fromEntries(
    body.messages.map((one: { source_object_key: string; reason: string }) => [
      one.source_object_key,
      one.reason,
    ]),
  );
}

describe('suppressed addresses', () => {
  it('are skipped in every send, with their reason', async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(5) });
    await h.api('PUT', '/api/suppressions/M1@list.example', { reason: 'hard_bounce' });
    await h.api('PUT', '/api/suppressions/m2@list.example', { reason: 'complaint' });
    await h.api('PUT', '/api/suppressions/m3@list.example', {
      reason: 'manual',
      note: 'asked by phone',
    });
    const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
    const done = await h.drain(body.send.id);
    expect(done.counts).toEqual({
      intended: 5,
      queued: 0,
      sent: 2,
      failed: 0,
      skipped: 3,
      unknown: 0,
    });
    expect(done.skipped_by_reason).toEqual({ hard_bounce: 1, complaint: 1, suppressed: 1 });
    expect(await reasons(body.send.id)).toEqual({
      m1: 'hard_bounce',
      m2: 'complaint',
      m3: 'suppressed',
    });
    expect([...h.sink.countByRecipient().keys()].sort()).toEqual([
      'm4@list.example',
      'm5@list.example',
    ]);
  });

  it('are skipped when the suppression arrives between trigger and delivery', async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
      members: someMembers(600),
    });
    const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
    // Messages are made by one lane; the lane that delivers them starts after the suppression.
    const preparing = await h.startWorker({ lanes: ['prepare'] });
    await until('all messages to be made', async () => {
      const { rows } = await h.database.pool.query(
        `select count(*)::integer as made from messages where state = 'queued'`,
      );
      return rows[0].made === 600;
    });
    await preparing.stop();
    await h.api('PUT', '/api/suppressions/m5@list.example', { reason: 'complaint' });
    await h.api('PUT', '/api/suppressions/m555@list.example', { reason: 'manual' });
    const done = await h.drain(body.send.id);
    expect(done.counts).toMatchObject({ sent: 598, skipped: 2 });
    expect(done.skipped_by_reason).toEqual({ complaint: 1, suppressed: 1 });
    expect(h.sink.countByRecipient().has('m5@list.example')).toBe(false);
  });

  it('are suppressed by a hard bounce at RCPT, and by nothing else', async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(4) });
    const replies: Record<string, Reply> = {
      'm1@list.example': new Reply(550, '5.1.1 no such user'),
      'm2@list.example': new Reply(550, '5.7.1 blocked by policy'),
      'm3@list.example': new Reply(550, 'no'),
    };
    h.sink.onRecipient = (address) => replies[address];
    const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
    const done = await h.drain(body.send.id);
    expect(done.counts).toMatchObject({ sent: 1, failed: 3, skipped: 0 });
    const { body: failed } = await h.api('GET', `/api/sends/${body.send.id}/messages?state=failed`);
    expect(
      failed.messages.map((one: any) => [one.source_object_key, one.reason, one.last_reply]),
    ).toEqual([
      ['m1', 'hard_bounce', '550 5.1.1 no such user'],
      ['m2', 'refused_by_server', '550 5.7.1 blocked by policy'],
      ['m3', 'refused_by_server', '550 no'],
    ]);
    const { body: page } = await h.api('GET', '/api/suppressions');
    expect(page.suppressions.map((one: any) => [one.email, one.reason])).toEqual([
      ['m1@list.example', 'hard_bounce'],
    ]);
  });
});

describe('consent', () => {
  const members = [
    { source_object_key: 'ok', email: 'ok@list.example' },
    { source_object_key: 'pending', email: 'pending@list.example', consent: 'pending' },
    {
      source_object_key: 'unsubscribed',
      email: 'unsubscribed@list.example',
      consent: 'unsubscribed',
    },
    { source_object_key: 'contact-pending', email: 'contact-pending@list.example' },
    { source_object_key: 'contact-out', email: 'contact-out@list.example', consent: 'pending' },
  ];
  const prepare = async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members });
    await h.api('PUT', '/api/contacts/contact-pending@list.example', { consent: 'pending' });
    await h.api('PUT', '/api/contacts/contact-out@list.example', { consent: 'unsubscribed' });
  };
  const expected = {
    pending: 'consent_pending',
    unsubscribed: 'unsubscribed',
    'contact-pending': 'consent_pending',
    'contact-out': 'unsubscribed',
  };

  it('is needed for a marketing template: the stricter of contact and member counts', async () => {
    await prepare();
    const { body } = await h.api(
      'POST',
      '/api/recipient-lists/l/send',
      newsletter({ requires_consent: false }),
    );
    const done = await h.drain(body.send.id);
    expect(done.counts).toMatchObject({ intended: 5, sent: 1, skipped: 4 });
    expect(done.skipped_by_reason).toEqual({ consent_pending: 2, unsubscribed: 2 });
    expect(await reasons(body.send.id)).toEqual(expected);
  });

  it('is needed where requires_consent asks for it', async () => {
    await prepare();
    const { body } = await h.api(
      'POST',
      '/api/recipient-lists/l/send',
      scoreSend({ requires_consent: true }),
    );
    expect((await h.drain(body.send.id)).counts).toMatchObject({ sent: 1, skipped: 4 });
    expect(await reasons(body.send.id)).toEqual(expected);
  });

  it('is not needed for a plain transactional mail', async () => {
    await prepare();
    const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
    expect((await h.drain(body.send.id)).counts).toMatchObject({ sent: 5, skipped: 0 });
  });

  it('goes along when a contact moves to another key, and counts for a member removed since', async () => {
    await prepare();
    await h.api('PUT', '/api/recipient-lists/l/members/moved', { email: 'pending@list.example' });
    const { body } = await h.api('POST', '/api/recipient-lists/l/send', newsletter());
    await h.api('DELETE', '/api/recipient-lists/l/members/moved');
    await h.drain(body.send.id);
    expect(await reasons(body.send.id)).toMatchObject({ moved: 'consent_pending' });
  });

  it('withdrawn between trigger and delivery is respected', async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(3) });
    const { body } = await h.api('POST', '/api/recipient-lists/l/send', newsletter());
    const preparing = await h.startWorker({ lanes: ['prepare'] });
    await until('all messages to be made', async () => {
      const { rows } = await h.database.pool.query(
        `select count(*)::integer as made from messages where state = 'queued'`,
      );
      return rows[0].made === 3;
    });
    await preparing.stop();
    await h.api('PUT', '/api/recipient-lists/l/members/m2', {
      email: 'm2@list.example',
      consent: 'unsubscribed',
    });
    const done = await h.drain(body.send.id);
    expect(done.skipped_by_reason).toEqual({ unsubscribed: 1 });
  });
});

it('what may have been delivered is unknown, not skipped, when the address is suppressed since', async () => {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(2) });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  const single = await h.api('POST', '/api/templates/default_template/test-send', {
    to: 'm1@list.example',
  });
  expect(single.status).toBe(202);
  const preparing = await h.startWorker({ lanes: ['prepare'] });
  await until('the messages', async () => {
    const { rows } = await h.database.pool.query('select from messages');
    return rows.length === 3;
  });
  await preparing.stop();
  await h.database.pool.query(
    "update messages set was_unknown = true, attempts = 1, reason = 'worker_died' where position = 1 or send_id is null",
  );
  await h.api('PUT', '/api/suppressions/m1@list.example', { reason: 'complaint' });
  const done = await h.drain(body.send.id);
  expect(done.counts).toMatchObject({ sent: 1, unknown: 1, skipped: 0 });
  await h.startWorker();
  const message = await until('the single email to be settled', async () => {
    const answer = await h.api('GET', `/api/messages/${single.body.message.id}`);
    return answer.body.message.state !== 'queued' && answer.body.message;
  });
  expect(message).toMatchObject({
    state: 'unknown',
    recipients: [{ state: 'unknown', reason: 'complaint' }],
  });
  expect(h.sink.accepted).toHaveLength(1);
});
