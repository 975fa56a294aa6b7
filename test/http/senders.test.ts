// /api/senders: the From identities, of which one is the default.
import { describe, expect, it } from 'vitest';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { expectProblem, expectTimestamps } from './tools.ts';

const h = useHarness(); // made `courses` already

const defaults = async () => {
  const { body } = await h.api('GET', '/api/senders');
  return body.senders
    .filter((sender: { default: boolean }) => sender.default)
    .map((sender: { id: string }) => sender.id);
};

describe('PUT /api/senders/{id}', () => {
  it('creates with 201, changes with 200, and leaves absent fields as they are', async () => {
    const created = await h.api('PUT', '/api/senders/news', {
      email: 'News@School.example',
      name: 'News',
      reply_to: 'office@school.example',
    });
    expect(created.status).toBe(201);
    expect(created.body).toEqual({
      sender: {
        id: 'news',
        email: 'News@School.example',
        name: 'News',
        reply_to: 'office@school.example',
        default: false,
        created_at: expect.any(String),
        updated_at: expect.any(String),
      },
    });
    expectTimestamps(created.body);
    const changed = await h.api('PUT', '/api/senders/news', { email: 'news@school.example' });
    expect(changed.status).toBe(200);
    expect(changed.body.sender).toMatchObject({
      email: 'news@school.example',
      name: 'News',
      reply_to: 'office@school.example',
      default: false,
      created_at: created.body.sender.created_at,
    });
    const cleared = await h.api('PUT', '/api/senders/news', {
      email: 'news@school.example',
      name: null,
      reply_to: null,
    });
    expect(cleared.body.sender).toMatchObject({ name: null, reply_to: null });
  });

  it('makes the first sender the default, and moves the default where asked', async () => {
    expect(await defaults()).toEqual(['courses']);
    await h.api('PUT', '/api/senders/news', { email: 'news@school.example' });
    expect(await defaults()).toEqual(['courses']);
    await h.api('PUT', '/api/senders/news', { email: 'news@school.example', default: true });
    expect(await defaults()).toEqual(['news']);
  });

  it('refuses to leave a client without a default', async () => {
    const answer = await h.api('PUT', '/api/senders/courses', {
      email: 'courses@school.example',
      default: false,
    });
    expectProblem(answer, 400, 'validation_failed', ['default']);
    expect(await defaults()).toEqual(['courses']);
    const other = await h.newClient('other');
    const first = { email: 'x@other.example', default: false };
    expectProblem(await other.api('PUT', '/api/senders/x', first), 400, 'validation_failed', [
      'default',
    ]);
  });

  it('keeps one default when many are made at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        h.api('PUT', `/api/senders/s${index}`, { email: 's@school.example', default: true }),
      ),
    );
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([201]));
    expect(await defaults()).toHaveLength(1);
  });

  it('takes ids with characters that need encoding', async () => {
    for (const id of ['a b', 'kurse@süd', '100%', '%41', 'a+b&c=d', '?#']) {
      const path = `/api/senders/${encodeURIComponent(id)}`;
      const { status, body } = await h.api('PUT', path, { email: 'x@school.example' });
      expect([status, body.sender.id]).toEqual([201, id]);
      expect((await h.api('DELETE', path)).status).toBe(204);
    }
  });
});

describe('DELETE /api/senders/{id}', () => {
  it('is 204, then 404; the oldest of the others becomes the default', async () => {
    await h.api('PUT', '/api/senders/b', { email: 'b@school.example' });
    await h.api('PUT', '/api/senders/a', { email: 'a@school.example' });
    const deleted = await h.api('DELETE', '/api/senders/courses');
    expect([deleted.status, deleted.body]).toEqual([204, undefined]);
    expect(await defaults()).toEqual(['b']);
    expectProblem(await h.api('DELETE', '/api/senders/courses'), 404, 'not_found');
  });

  it('touches no send that was triggered with it', async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(1) });
    const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
    await h.api('DELETE', '/api/senders/courses');
    expect((await h.drain(body.send.id)).counts.sent).toBe(1);
    expect((await h.sink.mailTo('m1@list.example')).from?.address).toBe('courses@school.example');
  });
});
