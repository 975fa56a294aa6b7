// What is older than the retention goes, in batches; counts and keys stay.
import { expect, it } from 'vitest';
import { purgeOld } from '../../src/sends/purge.ts';
import { anEmail, queueEmail, registerExampleTypes } from '../support/emails.ts';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { until } from '../support/until.ts';

const h = useHarness();
const never = new AbortController().signal;

async function sent(sendKey: string, members = 600): Promise<string> {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
    members: someMembers(members),
  });
  const { body } = await h.api(
    'POST',
    '/api/recipient-lists/l/send',
    scoreSend({ send_key: sendKey, recipient_context: { m1: { name: 'Ada' } } }),
  );
  await h.drain(body.send.id);
  return body.send.id;
}

const age = (id: string) =>
  h.database.pool.query(
    "update sends set completed_at = completed_at - interval '10 days' where id = $1",
    [id],
  );

async function rowsOf(table: string): Promise<number> {
  const { rows } = await h.database.pool.query(`select count(*)::integer as n from ${table}`);
  return rows[0].n;
}

it('takes members, contexts and messages of old sends; their counts outlive them', async () => {
  const old = await sent('old');
  const young = await sent('young');
  await age(old);
  const before = (await h.api('GET', `/api/sends/${old}`)).body.send;
  await purgeOld(h.database.db, 7, never);
  expect((await h.api('GET', `/api/sends/${old}`)).body.send).toEqual(before);
  expect((await h.api('GET', `/api/sends/${old}/messages`)).body.messages).toEqual([]);
  expect(
    (await h.api('GET', `/api/sends/${young}/messages?limit=1000`)).body.messages,
  ).toHaveLength(600);
  expect([await rowsOf('messages'), await rowsOf('send_recipients')]).toEqual([600, 600]);
  const { rows } = await h.database.pool.query(
    'select shared_context, emptied_at from sends where id = $1',
    [old],
  );
  expect(rows[0]).toMatchObject({ shared_context: {}, emptied_at: expect.any(Date) });
});

it('its send_key stays used, and it cannot be opened again', async () => {
  const id = await sent('old', 1);
  await age(id);
  await purgeOld(h.database.db, 7, never);
  const request = scoreSend({ send_key: 'old', recipient_context: { m1: { name: 'Ada' } } });
  const replay = await h.api('POST', '/api/recipient-lists/l/send', request);
  expect(replay).toMatchObject({ status: 200, body: { replayed: true, send: { id } } });
  const retry = await h.api('POST', `/api/sends/${id}/retry-failed`);
  expect(retry).toMatchObject({ status: 409, body: { code: 'send_is_over' } });
});

it('an unknown message of it cannot be sent again', async () => {
  const id = await sent('old', 1);
  await age(id);
  await h.database.pool.query("update messages set state = 'unknown', was_unknown = true");
  await h.database.pool.query('update send_chunks set sent = 0, unknown = 1');
  await h.database.pool.query('update sends set purged_at = now()');
  const { body } = await h.api('GET', `/api/sends/${id}/messages`);
  const answer = await h.api('POST', `/api/messages/${body.messages[0].id}/resolve`, {
    outcome: 'resend',
  });
  expect(answer).toMatchObject({ status: 409, body: { code: 'send_is_over' } });
});

it('a run that was cut short is finished by the next', async () => {
  const id = await sent('old', 1200);
  await age(id);
  await purgeOld(h.database.db, 7, AbortSignal.abort());
  expect(await rowsOf('messages')).toBe(1200);
  await Promise.all([1, 2, 3].map(() => purgeOld(h.database.db, 7, never)));
  expect(await rowsOf('messages')).toBe(0);
});

it('unfinished sends are kept, however old', async () => {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(2) });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  await h.database.pool.query("update sends set created_at = created_at - interval '1 year'");
  await purgeOld(h.database.db, 1, never);
  expect((await h.drain(body.send.id)).counts.sent).toBe(2);
});

it('takes single emails with what they consist of, files with the last email that has them', async () => {
  await registerExampleTypes(h);
  const file = { name: 'a.txt', type: 'text/plain', content: 'the same file' };
  const ids: string[] = [];
  for (const subject of ['old', 'young']) {
    const { body } = await queueEmail(h, h.key, anEmail({ subject, attachments: [file] }));
    ids.push(body.email_id);
  }
  await h.startWorker();
  await until('both to be sent', () => h.sink.accepted.length === 2);
  await until('that to be recorded', async () => {
    const { rows } = await h.database.pool.query(
      "select from single_emails where queue_state <> 'settled'",
    );
    return rows.length === 0;
  });
  const ageEmail = async (id: string) => {
    await h.database.pool.query(
      "update single_emails set queued_at = queued_at - interval '10 days' where message_id = $1",
      [id],
    );
    await h.database.pool.query(
      "update messages set settled_at = settled_at - interval '10 days' where id = $1",
      [id],
    );
  };
  await ageEmail(ids[0]!);
  await h.database.pool.query(
    "update attachment_contents set created_at = created_at - interval '1 day'",
  );
  await purgeOld(h.database.db, 7, never);
  expect(await rowsOf('single_emails')).toBe(1);
  expect(await rowsOf('attachment_contents')).toBe(1);
  await ageEmail(ids[1]!);
  await purgeOld(h.database.db, 7, never);
  for (const table of [
    'single_emails',
    'messages',
    'message_recipients',
    'message_attachments',
    'attachment_contents',
  ])
    expect([table, await rowsOf(table)]).toEqual([table, 0]);
});
