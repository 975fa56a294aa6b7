// /api/recipient-lists: stored lists, made by the first write that names them.
import { describe, expect, it } from 'vitest';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { expectProblem, expectTimestamps } from './tools.ts';

const h = useHarness();

describe('PUT /api/recipient-lists/{key}', () => {
  it('creates with 201, changes with 200, and leaves absent fields as they are', async () => {
    const created = await h.api('PUT', '/api/recipient-lists/homework', {
      name: 'Homework 1',
      type: 'homework',
      metadata: { course: 'ml', nested: { list: [1, 2.5, 'x', null, false] } },
    });
    expect(created.status).toBe(201);
    expect(created.body).toEqual({
      recipient_list: {
        key: 'homework',
        name: 'Homework 1',
        type: 'homework',
        metadata: { course: 'ml', nested: { list: [1, 2.5, 'x', null, false] } },
        created_at: expect.any(String),
        updated_at: expect.any(String),
      },
    });
    expectTimestamps(created.body);
    const same = await h.api('PUT', '/api/recipient-lists/homework', {});
    expect(same.status).toBe(200);
    expect(same.body.recipient_list).toMatchObject({
      name: 'Homework 1',
      type: 'homework',
      metadata: { course: 'ml' },
      created_at: created.body.recipient_list.created_at,
    });
    const changed = await h.api('PUT', '/api/recipient-lists/homework', {
      name: null,
      type: null,
      metadata: {},
    });
    expect(changed.body.recipient_list).toMatchObject({ name: null, type: null, metadata: {} });
  });

  it('takes every key the contract allows', async () => {
    const keys = [
      'ml-zoomcamp-2026:@e:@homework:homework-1',
      'a b',
      ' ',
      '100%',
      '%2F',
      '%00',
      'ü–漢字🎓',
      'a+b&c=d?e#f',
      '\\',
      'constructor',
      '__proto__',
      'members',
      'x'.repeat(255),
      '🎓'.repeat(255),
    ];
    for (const key of keys) {
      const path = `/api/recipient-lists/${encodeURIComponent(key)}`;
      const { status, body } = await h.api('PUT', path, {});
      expect([status, body.recipient_list?.key], key).toEqual([201, key]);
      expect((await h.api('GET', path)).body.recipient_list.key).toBe(key);
      expect((await h.api('GET', `${path}/members`)).body.members).toEqual([]);
    }
    const { body } = await h.api('GET', '/api/recipient-lists');
    expect(body.recipient_lists.map((list: { key: string }) => list.key).sort()).toEqual(
      [...keys].sort(),
    );
  });

  it('creates once when called many times at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => h.api('PUT', '/api/recipient-lists/l', {})),
    );
    expect(answers.filter((answer) => answer.status === 201)).toHaveLength(1);
    expect(answers.filter((answer) => answer.status === 200)).toHaveLength(19);
  });
});

describe('GET /api/recipient-lists/{key}', () => {
  it('counts the active members', async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(3) });
    await h.api('DELETE', '/api/recipient-lists/l/members/m2');
    const { status, body } = await h.api('GET', '/api/recipient-lists/l');
    expect(status).toBe(200);
    expect(body.recipient_list).toMatchObject({ key: 'l', active_members: 2 });
    expectTimestamps(body);
  });

  it('is 404 for a list that is not there', async () => {
    expectProblem(await h.api('GET', '/api/recipient-lists/none'), 404, 'not_found');
    expectProblem(await h.api('GET', '/api/recipient-lists/none/members'), 404, 'not_found');
  });
});

describe('DELETE /api/recipient-lists/{key}', () => {
  it('hides the list; its running send finishes; the key starts anew', async () => {
    await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(3) });
    const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
    const deleted = await h.api('DELETE', '/api/recipient-lists/l');
    expect([deleted.status, deleted.body]).toEqual([204, undefined]);
    expectProblem(await h.api('GET', '/api/recipient-lists/l'), 404, 'not_found');
    expectProblem(await h.api('GET', '/api/recipient-lists/l/members'), 404, 'not_found');
    expectProblem(await h.api('DELETE', '/api/recipient-lists/l'), 404, 'not_found');
    expect((await h.api('GET', '/api/recipient-lists')).body.recipient_lists).toEqual([]);
    expect((await h.drain(body.send.id)).counts.sent).toBe(3);
    expect((await h.api('PUT', '/api/recipient-lists/l', {})).status).toBe(201);
    expect((await h.api('GET', '/api/recipient-lists/l')).body.recipient_list.active_members).toBe(
      0,
    );
  });
});
