// The links of recipients, from the mail to what it changes: as Gmail calls them, as a person does, and
// what then happens to mail that is queued.
import type { Email } from 'postal-mime';
import { beforeEach, describe, expect, it } from 'vitest';
import { anEmail, queueEmail, registerExampleTypes } from '../support/emails.ts';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { Reply } from '../support/smtp-sink.ts';
import { until } from '../support/until.ts';

const h = useHarness();

const headerOf = (mail: Email, name: string) =>
  mail.headers.filter((one) => one.key === name).map((one) => one.value);

/** The https part of List-Unsubscribe, taken out as RFC 2369 has it. */
function linkOf(mail: Email): string {
  const [value = ''] = headerOf(mail, 'list-unsubscribe');
  return /<(https?:[^>]+)>/.exec(value)?.[1] ?? '';
}

/** As Gmail does it: no cookies, no redirects, the body of RFC 8058. */
async function oneClick(url: string): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    redirect: 'error',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: 'List-Unsubscribe=One-Click',
  });
}

const newsletter = (send_key: string) => ({
  send_key,
  template_key: 'course-newsletter',
  shared_context: { title: 'What is new', body: 'First.\n\nSecond.' },
});

async function send(list: string, body: object) {
  const { status, body: answer } = await h.api('POST', `/api/recipient-lists/${list}/send`, body);
  expect(status).toBe(202);
  return answer.send.id as string;
}

async function newMailTo(address: string): Promise<Email> {
  h.sink.accepted.length = 0;
  await h.drain(await send('news', newsletter(`news:${address}:${Math.random()}`)));
  return h.sink.mailTo(address);
}

beforeEach(() =>
  h.api('POST', '/api/recipient-lists/news/members/bulk-upsert', { members: someMembers(3) }),
);

describe('marketing mail to a list', () => {
  it('has both headers, and the same link in both parts, each recipient its own', async () => {
    await h.drain(await send('news', newsletter('1')));
    const links = new Set<string>();
    for (const { to } of h.sink.accepted) {
      const mail = await h.sink.mailTo(to[0]!);
      expect(headerOf(mail, 'list-unsubscribe-post')).toEqual(['List-Unsubscribe=One-Click']);
      const link = linkOf(mail);
      expect(headerOf(mail, 'list-unsubscribe')).toEqual([`<${link}>`]);
      expect(link).toMatch(new RegExp(`^${h.url}/unsubscribe/[\\w-]{44}$`));
      expect(mail.html).toContain(`href="${link}"`);
      expect(mail.text).toContain(`Unsubscribe <${link}>`);
      links.add(link);
    }
    expect(links.size).toBe(3);
  });

  it('names the mailbox, too, where there is one', async () => {
    const worker = await h.startWorker({ unsubscribeMailto: "o'leave+%me@school.example" });
    const id = await send('news', newsletter('1'));
    await h.waitFor(id, (one) => one.completed_at !== null);
    await worker.stop();
    const mail = await h.sink.mailTo('m1@list.example');
    const link = linkOf(mail);
    const token = link.split('/').at(-1);
    expect(headerOf(mail, 'list-unsubscribe')).toEqual([
      `<${link}>, <mailto:o'leave%2B%25me@school.example?subject=unsubscribe%20${token}>`,
    ]);
  });

  it('is skipped for who has unsubscribed by the header, also where it is queued already', async () => {
    const mail = await newMailTo('m2@list.example');
    const queued = await send('news', newsletter('queued'));
    const preparing = await h.startWorker({ lanes: ['prepare'] });
    await until('all messages to be made', async () => {
      const { rows } = await h.database.pool.query(
        `select count(*)::integer as made from messages where state = 'queued'`,
      );
      return rows[0].made === 3;
    });
    await preparing.stop();
    const answer = await oneClick(linkOf(mail));
    expect(answer.status).toBe(200);
    expect(answer.headers.get('set-cookie')).toBeNull();
    const done = await h.drain(queued);
    expect(done.counts).toMatchObject({ sent: 2, skipped: 1 });
    expect(done.skipped_by_reason).toEqual({ unsubscribed: 1 });
  });

  it('stays away whatever the client upserts, until the recipient confirms', async () => {
    await oneClick(linkOf(await newMailTo('m1@list.example')));
    const upsert = { email: 'm1@list.example', consent: 'subscribed' };
    await h.api('PUT', '/api/recipient-lists/news/members/m1', upsert);
    await h.api('PUT', '/api/recipient-lists/news/members/another-key', upsert);
    await h.api('PUT', '/api/contacts/m1@list.example', { consent: 'subscribed' });
    const still = await h.drain(await send('news', newsletter('still')));
    expect(still.skipped_by_reason).toEqual({ unsubscribed: 1 });

    const { body } = await h.api(
      'POST',
      '/api/recipient-lists/news/members/another-key/confirmation',
    );
    const confirm = await confirmLinkOf(body.message.id, 'm1@list.example');
    expect((await fetch(confirm, { method: 'POST' })).status).toBe(200);
    const back = await h.drain(await send('news', newsletter('back')));
    expect(back.counts).toMatchObject({ sent: 3, skipped: 0 });
  });

  it('of other lists goes on, unless it is everything', async () => {
    await h.api('POST', '/api/recipient-lists/other/members/bulk-upsert', {
      members: someMembers(3),
    });
    const link = linkOf(await newMailTo('m1@list.example'));
    await oneClick(link);
    expect((await h.drain(await send('other', newsletter('o1')))).counts).toMatchObject({
      sent: 3,
    });
    await fetch(link, { method: 'POST', body: new URLSearchParams({ scope: 'all' }) });
    const none = await h.drain(await send('other', newsletter('o2')));
    expect(none.skipped_by_reason).toEqual({ unsubscribed: 1 });
    // What needs no consent still goes.
    expect((await h.drain(await send('other', scoreSend()))).counts).toMatchObject({ sent: 3 });
    const { body } = await h.api('GET', '/api/contacts/m1@list.example');
    expect(body.contact).toMatchObject({ consent: 'unsubscribed' });
  });
});

describe('transactional mail', () => {
  it('has no way out, but where it needs consent', async () => {
    await h.drain(await send('news', scoreSend()));
    const plain = await h.sink.mailTo('m1@list.example');
    expect(headerOf(plain, 'list-unsubscribe')).toEqual([]);
    expect(headerOf(plain, 'list-unsubscribe-post')).toEqual([]);
    h.sink.accepted.length = 0;
    await h.drain(await send('news', scoreSend({ send_key: 'c', requires_consent: true })));
    const mail = await h.sink.mailTo('m1@list.example');
    expect((await oneClick(linkOf(mail))).status).toBe(200);
    const next = await h.drain(
      await send('news', scoreSend({ send_key: 'd', requires_consent: true })),
    );
    expect(next.skipped_by_reason).toEqual({ unsubscribed: 1 });
  });
});

describe('a marketing single email', () => {
  const fields = {
    email_type: 'news',
    email_template: 'course-newsletter',
    email_data: JSON.stringify({ title: 'News', body: 'One.', name: 'Ann' }),
    to_address: ['one@x.example', 'two@x.example'],
    cc_addresses: ['three@x.example'],
    bcc_addresses: ['four@x.example'],
  };
  const read = async (id: string) => (await h.api('GET', `/api/v1/emails/${id}`)).body.data;
  const settled = (id: string) =>
    until('the email to be settled', async () => {
      const email = await read(id);
      return email.status !== 'Pending' && email;
    });
  const outcomes = (email: {
    recipients: { email: string; status: string; reason: string | null }[];
  }) => Object.fromEntries(email.recipients.map((one) => [one.email, one.reason ?? one.status]));

  beforeEach(async () => {
    await registerExampleTypes(h);
    await h.api('PUT', '/api/v1/email-types/news', {});
  });
  const queue = async (more: object = {}) => {
    const { status, body } = await queueEmail(h, h.key, anEmail({ ...fields, ...more }));
    expect(status).toBe(201);
    return body.email_id as string;
  };

  it('goes to each recipient alone, with its own link and the same visible headers', async () => {
    const id = await queue();
    const worker = await h.startWorker();
    expect(outcomes(await settled(id))).toEqual({
      'one@x.example': 'Sent',
      'two@x.example': 'Sent',
      'three@x.example': 'Sent',
      'four@x.example': 'Sent',
    });
    expect(await read(id)).toMatchObject({ status: 'Sent', attempts: 1 });
    await worker.stop();
    expect(h.sink.accepted.map(({ to }) => to)).toEqual([
      ['one@x.example'],
      ['two@x.example'],
      ['three@x.example'],
      ['four@x.example'],
    ]);
    const mails = await Promise.all(h.sink.accepted.map(({ to }) => h.sink.mailTo(to[0]!)));
    expect(new Set(mails.map((mail) => mail.messageId)).size).toBe(1);
    expect(new Set(mails.map(linkOf)).size).toBe(4);
    for (const mail of mails) {
      expect(mail.to?.map((one) => one.address)).toEqual(['one@x.example', 'two@x.example']);
      expect(mail.cc?.map((one) => one.address)).toEqual(['three@x.example']);
      expect(mail.html).toContain(`href="${linkOf(mail)}"`);
      expect(mail.text).toContain(linkOf(mail));
    }
    // The address was no contact before; its link is out of everything.
    expect((await oneClick(linkOf(mails[3]!))).status).toBe(200);
    await h.startWorker();
    expect(outcomes(await settled(await queue()))).toMatchObject({
      'three@x.example': 'Sent',
      'four@x.example': 'unsubscribed',
    });
  });

  it('records recipient by recipient, and tries again only who was put off', async () => {
    let tries = 0;
    h.sink.onRecipient = (address) => {
      if (address === 'two@x.example' && ++tries < 3) return new Reply(450, '4.2.1 later');
      if (address === 'three@x.example') return new Reply(550, '5.1.1 no such user');
      return undefined;
    };
    const id = await queue({ priority_level: '1' });
    await h.startWorker();
    const email = await settled(id);
    expect(email).toMatchObject({ status: 'Sent', attempts: 3 });
    expect(outcomes(email)).toEqual({
      'one@x.example': 'Sent',
      'two@x.example': 'Sent',
      'three@x.example': 'hard_bounce',
      'four@x.example': 'Sent',
    });
    expect([...h.sink.countByRecipient().values()]).toEqual([1, 1, 1]);
    const { body } = await h.api('GET', '/api/suppressions');
    expect(body.suppressions.map((one: { email: string }) => one.email)).toEqual([
      'three@x.example',
    ]);
  });

  it('that is stopped between two recipients goes on with the next one later', async () => {
    const held = Promise.withResolvers<undefined>();
    h.sink.onBody = ({ to }) => (to[0] === 'two@x.example' ? held.promise : undefined);
    const id = await queue();
    const worker = await h.startWorker();
    // The first recipient's outcome is known while the second one's is awaited.
    await until('the second recipient to be in hand', async () => {
      const email = await read(id);
      return h.sink.accepted.length === 1 && outcomes(email)['one@x.example'] === 'Sent';
    });
    const stopped = worker.stop();
    held.resolve(undefined);
    await stopped;
    expect(h.sink.accepted.map(({ to }) => to[0])).toEqual(['one@x.example', 'two@x.example']);
    expect((await read(id)).status).toBe('Pending');
    await h.startWorker();
    await settled(id);
    expect(h.sink.accepted.map(({ to }) => to[0])).toEqual([
      'one@x.example',
      'two@x.example',
      'three@x.example',
      'four@x.example',
    ]);
  });

  it('counts each recipient against the rate of its mail server', async () => {
    const { singleTransport } = await import('../../src/smtp/transport-config.ts');
    const times: number[] = [];
    h.sink.onBody = () => {
      times.push(performance.now());
      return undefined;
    };
    const id = await queue();
    await h.startWorker({
      transports: [{ ...singleTransport(h.sink.url), messagesPerSecond: 2 }],
    });
    expect(outcomes(await settled(id))).toMatchObject({ 'four@x.example': 'Sent' });
    expect([...h.sink.countByRecipient().values()]).toEqual([1, 1, 1, 1]);
    // Two at once, and then one each half second.
    expect(times[3]! - times[0]!).toBeGreaterThan(900);
  });

  it('of a test-send has its way out, too', async () => {
    const { body } = await h.api('POST', '/api/templates/course-newsletter/test-send', {
      to: 'tester@x.example',
    });
    await h.startWorker();
    await until('the mail', () => h.sink.accepted.length === 1);
    expect(body.message.state).toBe('queued');
    expect((await oneClick(linkOf(await h.sink.mailTo('tester@x.example')))).status).toBe(200);
    const { body: contact } = await h.api('GET', '/api/contacts/tester@x.example');
    expect(contact.contact.unsubscribed_at).not.toBeNull();
  });
});

async function confirmLinkOf(messageId: string, address: string): Promise<string> {
  h.sink.accepted.length = 0;
  const worker = await h.startWorker();
  await until('the mail to be sent', async () => {
    const { body } = await h.api('GET', `/api/messages/${messageId}`);
    return body.message.state === 'sent';
  });
  await worker.stop();
  const mail = await h.sink.mailTo(address);
  const link = /<(http[^>]+\/confirm\/[^>]+)>/.exec(mail.text ?? '')?.[1];
  expect(mail.html).toContain(`href="${link}"`);
  return link!;
}

describe('double opt-in', () => {
  const path = '/api/recipient-lists/optin/members/p1/confirmation';
  beforeEach(async () => {
    await h.api('PUT', '/api/recipient-lists/optin', { name: 'Course news' });
    await h.api('PUT', '/api/recipient-lists/optin/members/p1', {
      email: 'p1@list.example',
      name: 'Ada',
      consent: 'pending',
    });
    await h.api('PUT', '/api/contacts/p1@list.example', { consent: 'pending' });
  });

  it('asks by mail; the button makes the member subscribed, once and for all', async () => {
    const { status, body, headers } = await h.api('POST', path);
    expect(status).toBe(202);
    expect(headers.get('location')).toBe(`/api/messages/${body.message.id}`);
    expect(body.message).toMatchObject({
      kind: 'single',
      template_key: 'confirm-subscription',
      state: 'queued',
      recipients: [{ kind: 'to', email: 'p1@list.example' }],
    });
    const link = await confirmLinkOf(body.message.id, 'p1@list.example');
    const mail = await h.sink.mailTo('p1@list.example');
    expect(mail.subject).toBe('Please confirm your subscription to Course news');
    expect(mail.text).toContain('Hi Ada,');
    expect(headerOf(mail, 'list-unsubscribe')).toEqual([]);
    expect((await fetch(link)).status).toBe(200);
    const pending = await h.drain(await send('optin', newsletter('before')));
    expect(pending.skipped_by_reason).toEqual({ consent_pending: 1 });
    for (let again = 0; again < 2; again++) {
      const answer = await fetch(link, { method: 'POST', redirect: 'error' });
      expect(answer.status).toBe(200);
      expect(await answer.text()).toContain('You are subscribed');
    }
    const { body: contact } = await h.api('GET', '/api/contacts/p1@list.example');
    expect(contact.contact).toMatchObject({
      consent: 'subscribed',
      lists: [{ list_key: 'optin', consent: 'subscribed' }],
    });
    expect((await h.drain(await send('optin', newsletter('after')))).counts.sent).toBe(1);
    const once = await h.api('POST', path, {});
    expect(once.status).toBe(409);
    expect(once.body.code).toBe('consent_not_pending');
  });

  it('undoes an unsubscribe from everything, by the person alone', async () => {
    const { body } = await h.api('POST', path, {});
    const link = await confirmLinkOf(body.message.id, 'p1@list.example');
    await fetch(link, { method: 'POST' });
    const out = linkOf(await mailOfOptIn('1'));
    await fetch(out, { method: 'POST', body: new URLSearchParams({ scope: 'all' }) });
    await oneClick(out);
    expect((await h.drain(await send('optin', newsletter('2')))).counts.sent).toBe(0);
    await fetch(link, { method: 'POST' });
    expect((await h.drain(await send('optin', newsletter('3')))).counts.sent).toBe(1);
  });

  it('undoes what is remembered of a person who was erased and came back', async () => {
    await h.api('PUT', '/api/contacts/p1@list.example', { consent: 'subscribed' });
    const member = { email: 'p1@list.example', consent: 'subscribed' };
    await h.api('PUT', '/api/recipient-lists/optin/members/p1', member);
    const out = linkOf(await mailOfOptIn('1'));
    await oneClick(out);
    expect((await h.api('DELETE', '/api/contacts/p1@list.example')).status).toBe(204);
    expect((await oneClick(out)).status).toBe(200);
    await h.api('PUT', '/api/recipient-lists/optin/members/p1', member);
    const still = await h.drain(await send('optin', newsletter('2')));
    expect(still.skipped_by_reason).toEqual({ unsubscribed: 1 });
    const { body: test } = await h.api('POST', '/api/templates/course-newsletter/test-send', {
      to: 'p1@list.example',
    });
    const worker = await h.startWorker();
    await until('the single mail to be skipped', async () => {
      const { body: now } = await h.api('GET', `/api/messages/${test.message.id}`);
      return now.message.state === 'skipped' && now.message.reason === 'unsubscribed';
    });
    await worker.stop();
    const { body } = await h.api('POST', path);
    await fetch(await confirmLinkOf(body.message.id, 'p1@list.example'), { method: 'POST' });
    expect((await h.drain(await send('optin', newsletter('3')))).counts.sent).toBe(1);
  });

  async function mailOfOptIn(key: string) {
    h.sink.accepted.length = 0;
    await h.drain(await send('optin', newsletter(key)));
    return h.sink.mailTo('p1@list.example');
  }

  it('takes own words, and a member who comes back under another key stays confirmed', async () => {
    const { body } = await h.api('POST', path, {
      shared_context: { list_name: 'The news', message: 'You asked for it.' },
    });
    const link = await confirmLinkOf(body.message.id, 'p1@list.example');
    const mail = await h.sink.mailTo('p1@list.example');
    expect(mail.subject).toBe('Please confirm your subscription to The news');
    expect(mail.text).toContain('You asked for it.');
    await h.api('DELETE', '/api/recipient-lists/optin/members/p1');
    await fetch(link, { method: 'POST' });
    await h.api('PUT', '/api/recipient-lists/optin/members/p2', { email: 'p1@list.example' });
    expect((await h.drain(await send('optin', newsletter('back')))).counts.sent).toBe(1);
  });

  it('by a list send asks each member with a link of their own', async () => {
    await h.api('PUT', '/api/recipient-lists/optin/members/p2', { email: 'p2@list.example' });
    const id = await send('optin', { send_key: 'ask', template_key: 'confirm-subscription' });
    await h.drain(id);
    const text = (await h.sink.mailTo('p1@list.example')).text ?? '';
    const link = /<(http[^>]+\/confirm\/[^>]+)>/.exec(text)![1]!;
    expect((await h.sink.mailTo('p2@list.example')).text).not.toContain(link);
    await fetch(link, { method: 'POST' });
    const { body } = await h.api('GET', '/api/contacts/p1@list.example');
    expect(body.contact.lists[0].consent).toBe('subscribed');
  });

  it('asks all pending members of a list at once, and nobody twice a day', async () => {
    const all = '/api/recipient-lists/optin/confirmations';
    await h.api('POST', '/api/recipient-lists/optin/members/bulk-upsert', {
      members: [
        { source_object_key: 'p2', email: 'p2@list.example', consent: 'pending', name: 'Bea' },
        { source_object_key: 'p3', email: 'p3@list.example' },
        { source_object_key: 'yes', email: 'yes@list.example' },
        { source_object_key: 'no', email: 'no@list.example', consent: 'unsubscribed' },
        { source_object_key: 'gone', email: 'gone@list.example', consent: 'pending' },
      ],
    });
    await h.api('PUT', '/api/contacts/p3@list.example', { consent: 'pending' });
    await h.api('DELETE', '/api/recipient-lists/optin/members/gone');
    const answers = await Promise.all(Array.from({ length: 5 }, () => h.api('POST', all)));
    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 202, 202]);
    expect(answers.map(({ body }) => body.queued as number).toSorted((a, b) => a - b)).toEqual([
      0, 0, 0, 0, 3,
    ]);
    expect((await h.api('POST', all, {})).body).toEqual({
      queued: 0,
      recently_asked: 3,
      remaining: 0,
    });
    const worker = await h.startWorker();
    await until('three mails', () => h.sink.accepted.length === 3);
    await worker.stop();
    expect([...h.sink.countByRecipient().keys()].sort()).toEqual([
      'p1@list.example',
      'p2@list.example',
      'p3@list.example',
    ]);
    const mail = await h.sink.mailTo('p2@list.example');
    expect(mail.subject).toBe('Please confirm your subscription to Course news');
    expect(mail.text).toContain('Hi Bea,');
    const link = /<(http[^>]+\/confirm\/[^>]+)>/.exec(mail.text!)![1]!;
    await fetch(link, { method: 'POST' });
    await h.database.pool.query(`update single_emails set queued_at = now() - interval '25 hours'`);
    expect((await h.api('POST', all)).body).toMatchObject({ queued: 2, recently_asked: 0 });
  });

  it('asks at most 10,000 by one call, and the rest by the next', async () => {
    for (const from of [0, 10_000]) {
      await h.api('POST', '/api/recipient-lists/big/members/bulk-upsert', {
        members: someMembers(10_002, { consent: 'pending' }).slice(from, from + 10_000),
      });
    }
    const first = await h.api('POST', '/api/recipient-lists/big/confirmations');
    expect(first.body).toEqual({ queued: 10_000, recently_asked: 0, remaining: 2 });
    const second = await h.api('POST', '/api/recipient-lists/big/confirmations');
    expect(second.body).toEqual({ queued: 2, recently_asked: 10_000, remaining: 0 });
  });

  it('is skipped for a suppressed address', async () => {
    await h.api('PUT', '/api/suppressions/p1@list.example', { reason: 'complaint' });
    const { body } = await h.api('POST', path);
    await h.startWorker();
    await until('the mail to be skipped', async () => {
      const { body: now } = await h.api('GET', `/api/messages/${body.message.id}`);
      return now.message.state === 'skipped' && now.message.reason === 'complaint';
    });
    expect(h.sink.accepted).toHaveLength(0);
  });
});

describe('a list that is deleted and made again', () => {
  const remake = async () => {
    await h.api('DELETE', '/api/recipient-lists/news');
    await h.api('POST', '/api/recipient-lists/news/members/bulk-upsert', {
      members: someMembers(3),
    });
  };
  const skips = async (key: string) =>
    (await h.drain(await send('news', newsletter(key)))).skipped_by_reason;

  it('has those unsubscribed who left it before', async () => {
    await oneClick(linkOf(await newMailTo('m1@list.example')));
    await remake();
    expect(await skips('again')).toEqual({ unsubscribed: 1 });
  });

  it('is left by links of mails from before, and joined again by a confirmation', async () => {
    const link = linkOf(await newMailTo('m1@list.example'));
    await remake();
    await oneClick(link);
    expect(await skips('again')).toEqual({ unsubscribed: 1 });
    h.sink.accepted.length = 0;
    const asked = await h.api('POST', '/api/recipient-lists/news/members/m1/confirmation');
    expect(asked.status).toBe(202);
    const worker = await h.startWorker();
    await until('the question', () => h.sink.accepted.length === 1);
    await worker.stop();
    const { html = '' } = await h.sink.mailTo('m1@list.example');
    await fetch(/href="([^"]+\/confirm\/[^"]+)"/.exec(html)![1]!, { method: 'POST' });
    await remake();
    expect(await skips('confirmed')).toEqual({});
  });

  it('while somebody leaves it: whichever is first', async () => {
    const link = linkOf(await newMailTo('m1@list.example'));
    await Promise.all([remake(), oneClick(link), remake(), oneClick(link)]);
    expect(await skips('again')).toEqual({ unsubscribed: 1 });
  });
});
