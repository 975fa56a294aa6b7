// DELETE /api/contacts/{email}: the person goes everywhere; counts, suppressions and unsubscribes stay.
import { describe, expect, it } from 'vitest';
import { sweepErased } from '../../src/recipients/erase.ts';
import { anEmail, queueEmail, type FormFields } from '../support/emails.ts';
import { ContextProvider } from '../support/context-provider.ts';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { Reply } from '../support/smtp-sink.ts';
import { until } from '../support/until.ts';

const h = useHarness();
const ADA = 'ada.lovelace@list.example';

const erase = (email = ADA) => h.api('DELETE', `/api/contacts/${email}`);

function addAda(list: string, more: Record<string, unknown> = {}) {
  return h.api('PUT', `/api/recipient-lists/${list}/members/ada-lovelace-key`, {
    email: ADA,
    name: 'Ada Lovelace',
    metadata: { phone: 'ada-phone' },
    ...more,
  });
}

const registerPlainType = () =>
  h.api('PUT', '/api/v1/email-types/plain', { cc_addresses: ['Ada.Lovelace@list.example'] });
const aPlainEmail = (more: FormFields) => anEmail({ email_type: 'plain', ...more });

/** Every table with a row that names her, in any column. */
async function tracesOf(...words: string[]): Promise<string[]> {
  const { rows: tables } = await h.database.pool.query(
    `select quote_ident(table_schema) || '.' || quote_ident(table_name) as name from information_schema.tables
     where table_schema in ('public', 'graphile_worker') and table_type = 'BASE TABLE'`,
  );
  const found = await Promise.all(
    tables.map(async ({ name }) => {
      const { rows } = await h.database.pool.query(
        `select 1 from ${name} t where to_jsonb(t)::text ilike any ($1) limit 1`,
        [words.map((word) => `%${word}%`)],
      );
      return rows.length > 0 ? name : [];
    }),
  );
  return found.flat();
}

it('leaves nothing that names the person', async () => {
  await registerPlainType();
  await h.api('PUT', `/api/contacts/${ADA}`, {
    name: 'Ada Lovelace',
    attributes: { phone: 'ada-phone' },
  });
  await addAda('a');
  await addAda('b');
  await h.api('POST', '/api/recipient-lists/a/members/bulk-upsert', { members: someMembers(2) });
  h.sink.onRecipient = (to) => (to === ADA ? new Reply(550, `5.7.1 <${ADA}> policy`) : undefined);
  const context = { 'ada-lovelace-key': { name: 'Ada Lovelace', score: 5 } };
  const { body } = await h.api(
    'POST',
    '/api/recipient-lists/a/send',
    scoreSend({ recipient_context: context }),
  );
  await h.drain(body.send.id);
  const single = await queueEmail(
    h,
    h.key,
    aPlainEmail({
      to_address: [ADA],
      email_data: JSON.stringify({ name: 'Ada Lovelace' }),
    }),
  );
  expect(single.status).toBe(201);
  await h.api('PUT', `/api/suppressions/${ADA}`, {
    reason: 'complaint',
    note: 'Ada Lovelace called',
  });
  const unprepared = await h.api(
    'POST',
    '/api/recipient-lists/a/send',
    scoreSend({ send_key: 'later', recipient_context: context }),
  );
  const before = (await h.api('GET', `/api/sends/${body.send.id}`)).body.send.counts;

  expect((await erase()).status).toBe(204);

  expect(await tracesOf('lovelace', 'ada-phone')).toEqual([]);
  expect((await h.api('GET', `/api/contacts/${ADA}`)).status).toBe(404);
  expect((await h.api('GET', `/api/messages?email=${ADA}`)).body.messages).toEqual([]);
  expect((await h.api('GET', `/api/sends/${body.send.id}`)).body.send.counts).toEqual(before);
  const done = await h.drain(unprepared.body.send.id);
  expect(done.counts).toMatchObject({ intended: 3, sent: 2, skipped: 1 });
  expect((await erase()).status).toBe(404);
});

it('a suppression survives as a hash, and holds when the address comes back', async () => {
  await addAda('a');
  await h.api('PUT', `/api/suppressions/${ADA}`, { reason: 'hard_bounce' });
  await erase();
  await addAda('a');
  expect((await h.api('GET', `/api/contacts/${ADA}`)).body.contact.suppression).toMatchObject({
    reason: 'hard_bounce',
  });
  const { body } = await h.api('POST', '/api/recipient-lists/a/send', scoreSend());
  expect((await h.drain(body.send.id)).skipped_by_reason).toEqual({ hard_bounce: 1 });
});

describe('an unsubscribe of the recipient', () => {
  const newsletter = {
    send_key: 'n',
    template_key: 'course-newsletter',
    shared_context: { title: 'T', body: 'B' },
  };
  async function unsubscribed() {
    await addAda('a');
    await h.database.pool.query(
      `insert into list_unsubscribes (client_id, contact_id, list_id)
       select client_id, contact_id, list_id from list_members`,
    );
    await erase();
    await addAda('a', { consent: 'subscribed' });
  }

  it('holds, too: no marketing mail, but other mail', async () => {
    await unsubscribed();
    const news = await h.api('POST', '/api/recipient-lists/a/send', newsletter);
    expect((await h.drain(news.body.send.id)).skipped_by_reason).toEqual({ unsubscribed: 1 });
    const score = await h.api('POST', '/api/recipient-lists/a/send', scoreSend());
    expect((await h.drain(score.body.send.id)).counts.sent).toBe(1);
    expect((await h.api('GET', '/api/suppressions')).body.suppressions).toEqual([]);
  });

  it('is not undone by a suppression that is set and taken back', async () => {
    await unsubscribed();
    expect((await h.api('DELETE', `/api/suppressions/${ADA}`)).status).toBe(404);
    const set = await h.api('PUT', `/api/suppressions/${ADA}`, { reason: 'manual' });
    expect(set.status).toBe(201);
    expect((await h.api('DELETE', `/api/suppressions/${ADA}`)).status).toBe(204);
    const news = await h.api('POST', '/api/recipient-lists/a/send', newsletter);
    expect((await h.drain(news.body.send.id)).skipped_by_reason).toEqual({ unsubscribed: 1 });
  });
});

it('mail that waits for the person is skipped', async () => {
  await registerPlainType();
  await addAda('a');
  const { body } = await h.api('POST', '/api/recipient-lists/a/send', scoreSend());
  const prepared = await h.startWorker({ lanes: ['prepare'] });
  await until('it to be prepared', async () => {
    const { rows } = await h.database.pool.query("select from messages where state = 'queued'");
    return rows.length === 1;
  });
  await prepared.stop();
  const { body: single } = await queueEmail(
    h,
    h.key,
    aPlainEmail({ to_address: [ADA, 'other@x.example'] }),
  );
  await erase();
  expect((await h.drain(body.send.id)).skipped_by_reason).toEqual({ suppressed: 1 });
  await h.startWorker();
  await until('the other to get it', () => h.sink.accepted.length === 1);
  expect(h.sink.accepted[0]!.to).toEqual(['other@x.example']);
  expect(single.success).toBe(true);
});

it('mail whose context was fetched and that waits is skipped, too', async () => {
  await addAda('a');
  const { body: callback } = await h.api('GET', '/api/client/context-callback');
  const provider = await new ContextProvider(callback.context_callback).start();
  try {
    h.sink.onRecipient = () => new Reply(451, '4.3.0 later');
    const { body } = await h.api(
      'POST',
      '/api/recipient-lists/a/send',
      scoreSend({ context_callback: { url: provider.url } }),
    );
    await h.startWorker();
    await until('a try', async () => {
      const { rows } = await h.database.pool.query('select from messages where attempts > 0');
      return rows.length > 0;
    });
    await erase();
    const done = await h.waitFor(body.send.id, (send) => send.completed_at !== null);
    expect(done.skipped_by_reason).toEqual({ suppressed: 1 });
    expect(await tracesOf('lovelace')).toEqual([]);
  } finally {
    await provider.stop();
  }
});

it('what a statement under way put back is swept', async () => {
  await addAda('a');
  const { body } = await h.api('POST', '/api/recipient-lists/a/send', scoreSend());
  await h.drain(body.send.id);
  const { rows } = await h.database.pool.query('select * from list_members');
  await erase();
  await h.database.pool.query(
    `insert into list_members (client_id, list_id, source_object_key, contact_id, name)
     values ($1, $2, 'ada-lovelace-key', $3, 'Ada Lovelace')`,
    [rows[0].client_id, rows[0].list_id, rows[0].contact_id],
  );
  await h.database.pool.query(
    "update messages set last_reply = '250 <ada.lovelace@list.example> ok'",
  );
  await sweepErased(h.database.db);
  expect(await tracesOf('lovelace')).not.toEqual([]); // too early: it may still be under way
  await h.database.pool.query("update contacts set erased_at = erased_at - interval '3 min'");
  await sweepErased(h.database.db);
  expect(await tracesOf('lovelace')).toEqual([]);
});

it('in the middle of everything: many erased, added and mailed at once', async () => {
  const members = someMembers(60);
  await h.api('POST', '/api/recipient-lists/a/members/bulk-upsert', { members });
  const { body } = await h.api('POST', '/api/recipient-lists/a/send', scoreSend());
  await h.startWorker();
  const calls = members.flatMap(({ email, source_object_key: key }, at) => [
    h.api('DELETE', `/api/contacts/${email}`),
    h.api('PUT', `/api/recipient-lists/${at % 2 ? 'b' : 'a'}/members/${key}`, { email }),
    h.api('POST', '/api/recipient-lists/b/members/bulk-upsert', {
      members: members.slice(at, at + 5),
    }),
  ]);
  const statuses = new Set((await Promise.all(calls)).map(({ status }) => status));
  expect([...statuses].filter((status) => status >= 500)).toEqual([]);
  const done = await h.waitFor(body.send.id, (send) => send.completed_at !== null);
  expect(done.counts.intended).toBe(60);
});

it('an address that stands nowhere is not found; one of single emails only is erased', async () => {
  await registerPlainType();
  expect((await erase('nobody@x.example')).status).toBe(404);
  await queueEmail(h, h.key, aPlainEmail({ to_address: ['only@x.example'] }));
  expect((await erase('Only@x.example')).status).toBe(204);
  expect(await tracesOf('only@')).toEqual([]);
});

it('does not touch another client', async () => {
  const { api } = await h.newClient('other');
  await api('PUT', `/api/recipient-lists/a/members/m1`, { email: ADA, name: 'Ada' });
  await addAda('a');
  await erase();
  expect((await api('GET', `/api/contacts/${ADA}`)).status).toBe(200);
});
