// The main story: one call mails every active member of a list its own mail, once.
import { describe, expect, it } from 'vitest';
import { expectLaw, scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { until } from '../support/until.ts';

const h = useHarness();

async function putMembers(list: string, members: object[]) {
  const { status, body } = await h.api('POST', `/api/recipient-lists/${list}/members/bulk-upsert`, {
    members,
  });
  expect(status).toBe(200);
  expect(body.rejected).toEqual([]);
}

describe('one call mails a list', () => {
  it('sends each member its own mail and adds up at every look', async () => {
    const members = someMembers(1200);
    await putMembers('homework', members);
    const { status, body, headers } = await h.api('POST', '/api/recipient-lists/homework/send', {
      ...scoreSend({ metadata: { source: 'cmp' } }),
      recipient_context: Object.fromEntries(
        members.map((member, index) => [
          member.source_object_key,
          { name: member.name, score: index, max_score: 2000 },
        ]),
      ),
    });
    expect(status).toBe(202);
    expect(headers.get('location')).toBe(`/api/sends/${body.send.id}`);
    expect(body).toMatchObject({
      replayed: false,
      send: {
        send_key: 'homework-score:1',
        list_key: 'homework',
        template_key: 'homework-score-published',
        from_email: 'courses',
        counts: { intended: 1200, queued: 1200, sent: 0, failed: 0, skipped: 0, unknown: 0 },
        skipped_by_reason: {},
        metadata: { source: 'cmp' },
        completed_at: null,
      },
    });
    const worker = await h.startWorker();
    let looks = 0;
    const done = await until('the send to complete', async () => {
      await expectLaw(h.database);
      looks += 1;
      const { body: now } = await h.api('GET', `/api/sends/${body.send.id}`);
      return now.send.completed_at !== null && now.send;
    });
    await worker.stop();
    expect(looks).toBeGreaterThan(1);
    expect(done).toMatchObject({
      state: 'completed',
      counts: { intended: 1200, sent: 1200, queued: 0 },
    });
    expect(h.sink.accepted).toHaveLength(1200);
    expect([...h.sink.countByRecipient().values()].every((count) => count === 1)).toBe(true);
    const mail = await h.sink.mailTo('m777@list.example');
    expect(mail.subject).toContain('Homework 1');
    expect(mail.text).toContain('Member 777');
    expect(mail.text).toContain('776');
    expect(mail.html).toContain('Member 777');
    expect(mail.to).toEqual([{ name: 'Member 777', address: 'm777@list.example' }]);
    expect(mail.from).toMatchObject({ name: 'Courses', address: 'courses@school.example' });
  });

  it('marks mail as automatic and as of its list, with a Message-ID that is its own', async () => {
    await putMembers('homework', someMembers(2));
    const { body } = await h.api('POST', '/api/recipient-lists/homework/send', scoreSend());
    await h.drain(body.send.id);
    const headers = (await h.sink.mailTo('m1@list.example')).headers;
    const header = (key: string) => headers.find((one) => one.key === key)?.value;
    expect(header('auto-submitted')).toBe('auto-generated');
    expect(header('list-id')).toMatch(/^<homework-[0-9a-f]{8}\.school\.example>$/);
    const { body: page } = await h.api('GET', `/api/sends/${body.send.id}/messages`);
    const message = page.messages.find(
      (one: { source_object_key: string }) => one.source_object_key === 'm1',
    );
    expect(header('message-id')).toBe(`<${message.id}@school.example>`);
    expect(message).toMatchObject({
      kind: 'list',
      state: 'sent',
      attempts: 1,
      email: 'm1@list.example',
    });
    expect(message.last_reply).toMatch(/^250 /);
  });

  it('completes a send to an empty list', async () => {
    await h.api('PUT', '/api/recipient-lists/empty', {});
    const { body } = await h.api('POST', '/api/recipient-lists/empty/send', scoreSend());
    const done = await h.drain(body.send.id);
    expect(done).toMatchObject({ state: 'completed', counts: { intended: 0, queued: 0 } });
  });

  it('takes the example of the documentation word for word', async () => {
    const key = encodeURIComponent('ml-zoomcamp-2026:@e:@homework:homework-1');
    await putMembers(key, someMembers(3));
    const { status, body } = await h.api('POST', `/api/recipient-lists/${key}/send`, {
      send_key: 'homework-score:ml-zoomcamp-2026:homework-1',
      template_key: 'homework-score-published',
      from_email: 'courses',
      shared_context: { course_title: 'ML Zoomcamp 2026', homework_title: 'Homework 1' },
      metadata: { source: 'course-management-platform', event: 'homework_score_published' },
    });
    expect(status).toBe(202);
    expect((await h.drain(body.send.id)).counts.sent).toBe(3);
  });
});

describe('a replay', () => {
  it('returns the same send with its counts, and mails nobody again', async () => {
    await putMembers('homework', someMembers(5));
    const first = await h.api('POST', '/api/recipient-lists/homework/send', scoreSend());
    await h.drain(first.body.send.id);
    // Key order and an explicit null are the same request.
    const { shared_context, ...rest } = scoreSend({ recipient_context: null });
    const again = await h.api('POST', '/api/recipient-lists/homework/send', {
      shared_context,
      ...rest,
    });
    expect(again.status).toBe(200);
    expect(again.body).toMatchObject({
      replayed: true,
      send: { id: first.body.send.id, state: 'completed', counts: { sent: 5 } },
    });
    await h.drain(first.body.send.id);
    expect(h.sink.accepted).toHaveLength(5);
  });

  it('makes one send of 50 concurrent identical triggers', async () => {
    await putMembers('homework', someMembers(20));
    const answers = await Promise.all(
      Array.from({ length: 50 }, () =>
        h.api('POST', '/api/recipient-lists/homework/send', scoreSend()),
      ),
    );
    expect(answers.filter((answer) => answer.status === 202)).toHaveLength(1);
    expect(answers.filter((answer) => answer.status === 200 && answer.body.replayed)).toHaveLength(
      49,
    );
    expect(new Set(answers.map((answer) => answer.body.send.id)).size).toBe(1);
    await h.drain(answers[0]!.body.send.id);
    expect(h.sink.accepted).toHaveLength(20);
  });

  it('is a conflict with another list, template or context, and names the fields', async () => {
    await putMembers('homework', someMembers(2));
    await putMembers('other', someMembers(2));
    await h.api('POST', '/api/recipient-lists/homework/send', scoreSend());
    const conflict = async (list: string, more: object) => {
      const { status, body } = await h.api(
        'POST',
        `/api/recipient-lists/${list}/send`,
        scoreSend(more as never),
      );
      expect(status).toBe(409);
      expect(body).toMatchObject({ status: 409, code: 'send_key_conflict' });
      return body.errors.map((error: { path: string }) => error.path);
    };
    expect(await conflict('other', {})).toEqual(['list_key']);
    expect(await conflict('homework', { template_key: 'default_template' })).toEqual([
      'template_key',
    ]);
    expect(await conflict('homework', { recipient_context: { m1: { score: 1 } } })).toEqual([
      'recipient_context',
    ]);
    expect(await conflict('homework', { from_email: 'courses' })).toEqual(['from_email']);
    expect(await conflict('other', { metadata: { a: 1 } })).toEqual(['list_key', 'metadata']);
    // A list that does not exist is still the same question: the send_key is looked up first.
    expect(await conflict('gone', {})).toEqual(['list_key']);
    const { rows } = await h.database.pool.query('select count(*)::integer as sends from sends');
    expect(rows[0].sends).toBe(1);
  });

  it('never fails because something was changed since', async () => {
    await putMembers('homework', someMembers(2));
    const first = await h.api(
      'POST',
      '/api/recipient-lists/homework/send',
      scoreSend({ recipient_context: { m1: {} } }),
    );
    await h.api('DELETE', '/api/recipient-lists/homework/members/m1');
    await h.api('DELETE', '/api/recipient-lists/homework');
    await h.api('DELETE', '/api/senders/courses');
    const again = await h.api(
      'POST',
      '/api/recipient-lists/homework/send',
      scoreSend({ recipient_context: { m1: {} } }),
    );
    expect(again.status).toBe(200);
    expect(again.body.send.id).toBe(first.body.send.id);
    expect((await h.drain(first.body.send.id)).counts.sent).toBe(2);
  });

  it('belongs to one client: another may use the same send_key', async () => {
    await putMembers('homework', someMembers(1));
    const first = await h.api('POST', '/api/recipient-lists/homework/send', scoreSend());
    const other = await h.newClient('other');
    await other.api('PUT', '/api/senders/x', { email: 'x@other.example' });
    await other.api('PUT', '/api/recipient-lists/homework/members/m1', {
      email: 'm1@list.example',
    });
    const second = await other.api('POST', '/api/recipient-lists/homework/send', scoreSend());
    expect(second.status).toBe(202);
    expect(second.body.send.id).not.toBe(first.body.send.id);
    expect((await other.api('GET', `/api/sends/${first.body.send.id}`)).status).toBe(404);
  });
});

describe('the snapshot', () => {
  it('mails a member removed after the trigger, and not one added after', async () => {
    await putMembers('homework', someMembers(3));
    const { body } = await h.api('POST', '/api/recipient-lists/homework/send', scoreSend());
    await h.api('DELETE', '/api/recipient-lists/homework/members/m2');
    await h.api('PUT', '/api/recipient-lists/homework/members/late', {
      email: 'late@list.example',
    });
    const done = await h.drain(body.send.id);
    expect(done.counts).toMatchObject({ intended: 3, sent: 3 });
    expect(h.sink.countByRecipient().get('m2@list.example')).toBe(1);
    expect(h.sink.countByRecipient().has('late@list.example')).toBe(false);
  });

  it('leaves out a member removed before the trigger', async () => {
    await putMembers('homework', someMembers(3));
    await h.api('DELETE', '/api/recipient-lists/homework/members/m2');
    const { body } = await h.api('POST', '/api/recipient-lists/homework/send', scoreSend());
    expect((await h.drain(body.send.id)).counts).toMatchObject({ intended: 2, sent: 2 });
  });

  it('mails a contact once that was added again under another source_object_key', async () => {
    await putMembers('homework', someMembers(2));
    // Without a removal, after one, and as another spelling of the address.
    await h.api('PUT', '/api/recipient-lists/homework/members/again', { email: 'M1@LIST.example' });
    await h.api('DELETE', '/api/recipient-lists/homework/members/m2');
    await h.api('PUT', '/api/recipient-lists/homework/members/m2-again', {
      email: 'm2@list.example',
    });
    const { body } = await h.api('POST', '/api/recipient-lists/homework/send', scoreSend());
    await h.api('PUT', '/api/recipient-lists/homework/members/third', { email: 'm1@list.example' });
    expect((await h.drain(body.send.id)).counts).toMatchObject({ intended: 2, sent: 2 });
    expect(h.sink.accepted).toHaveLength(2);
  });
});

describe('a trigger that cannot be', () => {
  const refused = async (list: string, request: object, status: number, code: string) => {
    const answer = await h.api('POST', `/api/recipient-lists/${list}/send`, request);
    expect(answer.status).toBe(status);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(answer.body).toMatchObject({ status, code });
    for (const table of ['sends', 'send_recipients', 'graphile_worker._private_jobs']) {
      const { rows } = await h.database.pool.query(
        `select count(*)::integer as count from ${table}`,
      );
      expect(rows[0].count, table).toBe(0);
    }
    return answer.body;
  };

  it('is 404 for an unknown list', async () => {
    await refused('nowhere', scoreSend(), 404, 'not_found');
  });

  it('is 422 for an unknown template or sender', async () => {
    await putMembers('homework', someMembers(1));
    await refused('homework', scoreSend({ template_key: 'nothing' }), 422, 'template_not_found');
    await refused('homework', scoreSend({ from_email: 'nobody' }), 422, 'sender_not_found');
    await h.api('DELETE', '/api/senders/courses');
    await refused('homework', scoreSend(), 422, 'no_default_sender');
  });

  it('is 400 for contexts that do not fit the template, naming each member', async () => {
    await putMembers('homework', someMembers(3));
    const paths = (body: any) => body.errors.map((error: { path: string }) => error.path).sort();
    expect(
      paths(
        await refused(
          'homework',
          scoreSend({ shared_context: { course_title: 'X' } }),
          400,
          'validation_failed',
        ),
      ),
    ).toEqual(['shared_context.homework_title']);
    const recipient_context = {
      m1: { score: 'ten' },
      m2: { score: 3 },
      m3: { details: [{ label: 'Q' }], mystery: 1 },
    };
    expect(
      paths(await refused('homework', scoreSend({ recipient_context }), 400, 'validation_failed')),
    ).toEqual([
      'recipient_context.m1.score',
      'recipient_context.m3.details.0.points',
      'recipient_context.m3.mystery',
    ]);
    await h.api('DELETE', '/api/recipient-lists/homework/members/m3');
    expect(
      paths(
        await refused(
          'homework',
          scoreSend({ recipient_context: { m3: {}, zz: {}, m1: {} } }),
          400,
          'validation_failed',
        ),
      ),
    ).toEqual(['recipient_context.m3', 'recipient_context.zz']);
  });

  it('names at most the first 100 members', async () => {
    await putMembers('homework', someMembers(150));
    const recipient_context = Object.fromEntries(
      someMembers(150).map((one) => [one.source_object_key, { score: 'x' }]),
    );
    const body = await refused(
      'homework',
      scoreSend({ recipient_context }),
      400,
      'validation_failed',
    );
    expect(body.errors).toHaveLength(100);
  });
});
