// Reading sends: the list with its filters, one by id, one by its key.
import { beforeEach, describe, expect, it } from 'vitest';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { expectProblem, expectTimestamps } from './tools.ts';

const h = useHarness();

const trigger = async (list: string, send_key: string) => {
  const { status, body } = await h.api(
    'POST',
    `/api/recipient-lists/${list}/send`,
    scoreSend({ send_key }),
  );
  expect(status).toBe(202);
  return body.send;
};
const keys = async (query = '') => {
  const { status, body } = await h.api('GET', `/api/sends${query}`);
  expect(status).toBe(200);
  return body.sends.map((send: { send_key: string }) => send.send_key);
};

beforeEach(async () => {
  for (const list of ['a', 'b']) {
    await h.api('POST', `/api/recipient-lists/${list}/members/bulk-upsert`, {
      members: someMembers(2),
    });
  }
});

describe('GET /api/sends', () => {
  it('lists the newest first, by list and by state', async () => {
    const first = await trigger('a', 's1');
    await h.drain(first.id);
    await trigger('b', 's2');
    await trigger('a', 's3');
    expect(await keys()).toEqual(['s3', 's2', 's1']);
    expect(await keys('?list_key=a')).toEqual(['s3', 's1']);
    expect(await keys('?state=completed')).toEqual(['s1']);
    expect(await keys('?state=queued')).toEqual(['s3', 's2']);
    expect(await keys('?state=queued&list_key=b')).toEqual(['s2']);
    expect(await keys('?state=cancelled')).toEqual([]);
    expect(await keys('?list_key=nowhere')).toEqual([]);
    expectProblem(await h.api('GET', '/api/sends?state=gone'), 400, 'validation_failed', ['state']);
  });

  it('shows the sends of a list that was deleted since', async () => {
    await trigger('a', 's1');
    await h.api('DELETE', '/api/recipient-lists/a');
    expect(await keys('?list_key=a')).toEqual(['s1']);
  });
});

describe('GET /api/sends/{id}', () => {
  it('shows what the trigger answered, with counts of now', async () => {
    const send = await trigger('a', 's1');
    const { status, body } = await h.api('GET', `/api/sends/${send.id}`);
    expect(status).toBe(200);
    expect(body).toEqual({ send });
    expect(send).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/),
      send_key: 's1',
      list_key: 'a',
      template_key: 'homework-score-published',
      from_email: 'courses',
      state: 'queued',
      counts: { intended: 2, queued: 2, sent: 0, failed: 0, skipped: 0, unknown: 0 },
      skipped_by_reason: {},
      metadata: {},
      scheduled_at: null,
      expires_at: null,
      created_at: expect.any(String),
      completed_at: null,
    });
    const done = await h.drain(send.id);
    expect(done).toMatchObject({ state: 'completed', counts: { sent: 2, queued: 0 } });
    expectTimestamps({ created_at: done.created_at });
    expectTimestamps({ completed_at: done.completed_at });
    expect((await h.api('GET', `/api/sends/${send.id.toUpperCase()}`)).body.send.id).toBe(send.id);
  });

  it('is 404 for an id that is not there or is no id', async () => {
    for (const id of ['019af5d1-0000-7000-8000-000000000000', 'nothing', '1', '%20', 'null']) {
      expectProblem(await h.api('GET', `/api/sends/${id}`), 404, 'not_found', undefined, id);
      expectProblem(await h.api('GET', `/api/sends/${id}/messages`), 404, 'not_found');
    }
  });
});

describe('GET /api/sends/by-key/{send_key}', () => {
  it('finds a send by any key it can have', async () => {
    const sendKeys = [
      'homework-score:ml-zoomcamp-2026:homework-1',
      'a/b',
      '/',
      '100%',
      '%2F',
      'a b+c&d=e?f#g',
      'ü–漢字🎓',
      '\\',
      'messages',
      'by-key',
      'constructor',
      '__proto__',
      'x'.repeat(255),
    ];
    for (const send_key of sendKeys) {
      const send = await trigger('a', send_key);
      const { status, body } = await h.api(
        'GET',
        `/api/sends/by-key/${encodeURIComponent(send_key)}`,
      );
      expect([status, body.send?.id], send_key).toEqual([200, send.id]);
    }
  });

  it('is 404 for a key no send has', async () => {
    for (const key of ['none', 'x'.repeat(5_000), '%00', 'a%0D%0Ab', '%F0%9F%8E%93']) {
      expectProblem(await h.api('GET', `/api/sends/by-key/${key}`), 404, 'not_found');
    }
  });
});
