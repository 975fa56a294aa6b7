// /api/recipient-lists/{key}/members: in a list a key stands once and a contact is active once.
import { beforeEach, describe, expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { expectProblem, expectTimestamps } from './tools.ts';

const h = useHarness();
const LIST = '/api/recipient-lists/l';

const put = (key: string, body: object) =>
  h.api('PUT', `${LIST}/members/${encodeURIComponent(key)}`, body);
const bulk = async (members: unknown[]) => {
  const { status, body } = await h.api('POST', `${LIST}/members/bulk-upsert`, { members });
  expect(status).toBe(200);
  return body;
};
const read = async (status?: 'active' | 'removed') => {
  const { body } = await h.api('GET', `${LIST}/members${status ? `?status=${status}` : ''}`);
  return body.members as Record<string, any>[];
};
/** `key → address` of the active members. */
const active = async () =>
  Object.fromEntries((await read()).map((one) => [one.source_object_key, one.email]));

describe('PUT …/members/{source_object_key}', () => {
  it('makes the list and the member: 201, then 200', async () => {
    const created = await put('k1', {
      email: 'Ada@List.example',
      name: 'Ada',
      consent: 'pending',
      metadata: { row: 1 },
    });
    expect(created.status).toBe(201);
    expect(created.body).toEqual({
      member: {
        source_object_key: 'k1',
        email: 'Ada@List.example',
        name: 'Ada',
        consent: 'pending',
        metadata: { row: 1 },
        created_at: expect.any(String),
        updated_at: expect.any(String),
        removed_at: null,
      },
    });
    expectTimestamps(created.body);
    expect((await h.api('GET', LIST)).status).toBe(200);
    const again = await put('k1', { email: 'ada@list.example' });
    expect(again.status).toBe(200);
    expect(again.body.member).toEqual({ ...created.body.member, email: 'ada@list.example' });
    expect(await read()).toEqual([again.body.member]);
  });

  it('takes a member without consent for subscribed', async () => {
    const { body } = await put('k1', { email: 'ada@list.example' });
    expect(body.member).toMatchObject({ consent: 'subscribed', name: null, metadata: {} });
  });

  it('leaves absent fields as they are; null clears the name', async () => {
    await put('k1', {
      email: 'ada@list.example',
      name: 'Ada',
      consent: 'pending',
      metadata: { a: 1 },
    });
    const cases: [object, object][] = [
      [{ consent: 'subscribed' }, { name: 'Ada', consent: 'subscribed', metadata: { a: 1 } }],
      [{ metadata: { b: 2 } }, { name: 'Ada', consent: 'subscribed', metadata: { b: 2 } }],
      [{ name: null }, { name: null, consent: 'subscribed', metadata: { b: 2 } }],
      [{ name: 'Countess' }, { name: 'Countess', consent: 'subscribed', metadata: { b: 2 } }],
    ];
    for (const [change, expected] of cases) {
      const { status, body } = await put('k1', { email: 'ada@list.example', ...change });
      expect(status).toBe(200);
      expect(body.member).toMatchObject(expected);
    }
  });

  it('keeps the strictest consent of a person who was removed and comes back', async () => {
    await put('k1', { email: 'ada@list.example', consent: 'unsubscribed' });
    await h.api('DELETE', `${LIST}/k1`);
    const other = await put('k2', { email: 'ada@list.example' });
    expect(other.body.member.consent).toBe('unsubscribed');
    const back = await put('k1', { email: 'ada@list.example' });
    expect(back.body.member.consent).toBe('unsubscribed');
    const told = await put('k1', { email: 'ada@list.example', consent: 'subscribed' });
    expect(told.body.member.consent).toBe('subscribed');
    const unchanged = await put('k1', { email: 'ada@list.example' });
    expect(unchanged.body.member.consent).toBe('subscribed');
  });

  it('gives a key to another address: the member changes, it is not a second one', async () => {
    await put('k1', { email: 'old@list.example', name: 'Ada' });
    const { status, body } = await put('k1', { email: 'new@list.example' });
    expect(status).toBe(200);
    expect(body.member).toMatchObject({ email: 'new@list.example', name: 'Ada' });
    expect(await active()).toEqual({ k1: 'new@list.example' });
  });

  it('moves a contact to the latest key, with its consent', async () => {
    await put('k1', { email: 'ada@list.example', consent: 'pending' });
    const moved = await put('k2', { email: 'ADA@list.example' });
    expect(moved.status).toBe(201);
    expect(moved.body.member.consent).toBe('pending');
    expect(await active()).toEqual({ k2: 'ADA@list.example' }); // as it was last spelled
    expect((await read('removed')).map((one) => one.source_object_key)).toEqual(['k1']);
    const stricter = await put('k3', { email: 'ada@list.example', consent: 'unsubscribed' });
    expect(stricter.body.member.consent).toBe('unsubscribed');
    // Back to a key whose own row was looser.
    const back = await put('k1', { email: 'ada@list.example' });
    expect(back.body.member.consent).toBe('unsubscribed');
    expect(await active()).toEqual({ k1: 'ada@list.example' });
    const given = await put('k4', { email: 'ada@list.example', consent: 'subscribed' });
    expect(given.body.member.consent).toBe('subscribed');
  });

  it('never undoes what the recipient decided about the list, under no key', async () => {
    await put('k1', { email: 'ada@list.example' });
    await h.database.pool.query(
      'insert into list_unsubscribes (client_id, contact_id, list_id) select client_id, contact_id, list_id from list_members',
    );
    for (const key of ['k1', 'k2']) {
      const { body } = await put(key, { email: 'ada@list.example', consent: 'subscribed' });
      expect(body.member.consent).toBe('unsubscribed');
    }
    await h.api('DELETE', `${LIST}/members/k2`);
    const again = await put('k3', { email: 'ada@list.example', consent: 'subscribed' });
    expect(again.body.member.consent).toBe('unsubscribed');
  });

  it('leaves the contact and other lists as they are', async () => {
    await h.api('PUT', '/api/contacts/ada@list.example', { name: 'Ada', consent: 'pending' });
    await h.api('PUT', '/api/recipient-lists/other/members/o1', { email: 'ada@list.example' });
    await put('k1', { email: 'ada@list.example', name: 'In l', consent: 'unsubscribed' });
    const { body } = await h.api('GET', '/api/contacts/ada@list.example');
    expect(body.contact).toMatchObject({
      name: 'Ada',
      consent: 'pending',
      lists: [
        { list_key: 'l', source_object_key: 'k1', consent: 'unsubscribed' },
        { list_key: 'other', source_object_key: 'o1', consent: 'subscribed' },
      ],
    });
  });

  it('takes odd keys, also ones that look like routes', async () => {
    const keys = [
      'bulk-upsert',
      'import',
      '100%',
      '%2F',
      'a@b:c',
      'ü 🎓',
      'constructor',
      '__proto__',
    ];
    for (const [index, key] of keys.entries()) {
      const { status, body } = await put(key, { email: `p${index}@list.example` });
      expect([status, body.member?.source_object_key], key).toEqual([201, key]);
    }
    expect(Object.keys(await active()).sort()).toEqual([...keys].sort());
  });
});

describe('DELETE …/members/{source_object_key}', () => {
  beforeEach(async () => {
    await put('k1', {
      email: 'ada@list.example',
      name: 'Ada',
      consent: 'pending',
      metadata: { a: 1 },
    });
  });

  it('takes the member out of the list and keeps the row; a second time changes nothing', async () => {
    const first = await h.api('DELETE', `${LIST}/members/k1`);
    expect([first.status, first.body]).toEqual([204, undefined]);
    expect(await read()).toEqual([]);
    const [removed] = await read('removed');
    expect(removed).toMatchObject({ source_object_key: 'k1', email: 'ada@list.example' });
    expectTimestamps({ removed_at: removed!.removed_at });
    expect((await h.api('DELETE', `${LIST}/members/k1`)).status).toBe(204);
    expect(await read('removed')).toEqual([removed]);
    expect((await h.api('DELETE', `${LIST}/members/never-was`)).status).toBe(204);
  });

  it('is undone by adding the key again: 200, with the fields it had', async () => {
    await h.api('DELETE', `${LIST}/members/k1`);
    const { status, body } = await put('k1', { email: 'ada@list.example' });
    expect(status).toBe(200);
    expect(body.member).toMatchObject({
      name: 'Ada',
      consent: 'pending',
      metadata: { a: 1 },
      removed_at: null,
    });
    expect(await read('removed')).toEqual([]);
  });

  it('lets the contact come back under another key', async () => {
    await h.api('DELETE', `${LIST}/members/k1`);
    expect((await put('k2', { email: 'ada@list.example' })).status).toBe(201);
    expect(await active()).toEqual({ k2: 'ada@list.example' });
  });
});

describe('POST …/members/bulk-upsert', () => {
  const two = [
    { source_object_key: 'k1', email: 'ada@list.example', name: 'Ada', metadata: { a: 1 } },
    { source_object_key: 'k2', email: 'bob@list.example' },
  ];

  it('makes the list and counts created, updated and unchanged', async () => {
    expect(await bulk(two)).toEqual({ created: 2, updated: 0, unchanged: 0, rejected: [] });
    const before = await read();
    expect(await bulk(two)).toEqual({ created: 0, updated: 0, unchanged: 2, rejected: [] });
    expect(await read()).toEqual(before);
    // Absent is unchanged; so is the same metadata in another order and an address in capitals.
    expect(
      await bulk([
        { source_object_key: 'k2', email: 'BOB@list.example' },
        { source_object_key: 'k1', email: 'ada@list.example' },
      ]),
    ).toEqual({ created: 0, updated: 0, unchanged: 2, rejected: [] });
    expect(
      await bulk([
        { source_object_key: 'k1', email: 'ada@list.example', name: 'Countess' },
        { source_object_key: 'k2', email: 'bob@list.example' },
        { source_object_key: 'k3', email: 'cid@list.example', consent: 'pending' },
      ]),
    ).toEqual({ created: 1, updated: 1, unchanged: 1, rejected: [] });
    expect(await read()).toMatchObject([
      { source_object_key: 'k1', name: 'Countess', metadata: { a: 1 }, consent: 'subscribed' },
      { source_object_key: 'k2', name: null, metadata: {} },
      { source_object_key: 'k3', consent: 'pending' },
    ]);
  });

  it('clears a name with null, for one member and not for its neighbours', async () => {
    await bulk([two[0], { ...two[1], name: 'Bob' }]);
    expect(
      await bulk([
        { source_object_key: 'k1', email: 'ada@list.example', name: null },
        { source_object_key: 'k2', email: 'bob@list.example' },
      ]),
    ).toMatchObject({ updated: 1, unchanged: 1 });
    expect((await read()).map((one) => one.name)).toEqual([null, 'Bob']);
  });

  it('counts a member that comes back as updated', async () => {
    await bulk(two);
    await h.api('DELETE', `${LIST}/members/k1`);
    expect(await bulk(two)).toMatchObject({ created: 0, updated: 1, unchanged: 1 });
  });

  it('rejects bad members, each with its index, key and what is wrong, and takes the others', async () => {
    const { rejected, ...counts } = await bulk([
      { source_object_key: 'ok', email: 'ok@list.example' },
      { source_object_key: 'k1', email: 'not an address' },
      { source_object_key: 'a/b', email: 'a@list.example' },
      { email: 'b@list.example' },
      { source_object_key: 'k4' },
      { source_object_key: 'k5', email: 'c@list.example', consent: 'maybe' },
      { source_object_key: 'k6', email: 'd@list.example', nmae: 'typo' },
      { source_object_key: 'k7', email: 'e@list.example', name: 7 },
      { source_object_key: 'k8', email: 'f@list.example', metadata: [] },
      { source_object_key: 'k9', email: 'g@list.example', name: 'a\r\nb' },
      null,
      'member',
      [],
      7,
      { source_object_key: 'k14', email: 'h@list.example', name: 'a\0b' },
      { source_object_key: 'k15', email: 'i@list.example', metadata: { '\ud800': 1 } },
      { source_object_key: 'k\0', email: 'j@list.example' },
      { source_object_key: 'last', email: 'last@list.example' },
    ]);
    expect(counts).toEqual({ created: 2, updated: 0, unchanged: 0 });
    expect(rejected).toEqual([
      {
        index: 1,
        source_object_key: 'k1',
        message: 'email: must be an email address such as name@example.com',
      },
      {
        index: 2,
        source_object_key: 'a/b',
        message:
          'source_object_key: must be 1 to 255 characters without "/" and control characters',
      },
      { index: 3, source_object_key: null, message: 'source_object_key: is required' },
      { index: 4, source_object_key: 'k4', message: 'email: is required' },
      {
        index: 5,
        source_object_key: 'k5',
        message: 'consent: must be one of subscribed, pending, unsubscribed',
      },
      { index: 6, source_object_key: 'k6', message: 'nmae: is not a known field' },
      { index: 7, source_object_key: 'k7', message: 'name: must be a string' },
      { index: 8, source_object_key: 'k8', message: 'metadata: must be an object' },
      {
        index: 9,
        source_object_key: 'k9',
        message: 'name: must be one line without control characters',
      },
      { index: 10, source_object_key: null, message: 'member: must be an object' },
      { index: 11, source_object_key: null, message: 'member: must be an object' },
      { index: 12, source_object_key: null, message: 'member: must be an object' },
      { index: 13, source_object_key: null, message: 'member: must be an object' },
      {
        index: 14,
        source_object_key: 'k14',
        message: 'name: must not contain the character NUL',
      },
      {
        index: 15,
        source_object_key: 'k15',
        message: 'metadata.\ufffd: must be well-formed Unicode: it has half a surrogate pair',
      },
      {
        index: 16,
        source_object_key: null,
        message: 'source_object_key: must not contain the character NUL',
      },
    ]);
    expect(Object.keys(await active())).toEqual(['last', 'ok']);
  });

  it('rejects a key or an address the second time it stands in one call', async () => {
    const { rejected, ...counts } = await bulk([
      { source_object_key: 'k1', email: 'ada@list.example', name: 'first' },
      { source_object_key: 'k1', email: 'bob@list.example' },
      { source_object_key: 'k2', email: 'ADA@LIST.example' },
      { source_object_key: 'k3', email: 'cid@list.example' },
    ]);
    expect(counts).toEqual({ created: 2, updated: 0, unchanged: 0 });
    expect(rejected).toEqual([
      {
        index: 1,
        source_object_key: 'k1',
        message: 'source_object_key: stands already at index 0 of this call',
      },
      {
        index: 2,
        source_object_key: 'k2',
        message: 'email: stands already at index 0 of this call',
      },
    ]);
    expect(await active()).toEqual({ k1: 'ada@list.example', k3: 'cid@list.example' });
  });

  it('swaps the keys of two contacts in one call, each with its consent', async () => {
    await bulk([
      { source_object_key: 'k1', email: 'ada@list.example', consent: 'pending' },
      { source_object_key: 'k2', email: 'bob@list.example' },
    ]);
    expect(
      await bulk([
        { source_object_key: 'k1', email: 'bob@list.example' },
        { source_object_key: 'k2', email: 'ada@list.example' },
      ]),
    ).toMatchObject({ created: 0, updated: 2 });
    expect(await read()).toMatchObject([
      { source_object_key: 'k1', email: 'bob@list.example', consent: 'subscribed' },
      { source_object_key: 'k2', email: 'ada@list.example', consent: 'pending' },
    ]);
    expect(await read('removed')).toEqual([]);
  });

  it('takes an empty call, and makes the list', async () => {
    expect(await bulk([])).toEqual({ created: 0, updated: 0, unchanged: 0, rejected: [] });
    expect((await h.api('GET', LIST)).status).toBe(200);
  });

  it('takes at most 10,000 members', async () => {
    const members = Array.from({ length: 10_001 }, (_, index) => ({
      source_object_key: `k${index}`,
      email: `p${index}@list.example`,
    }));
    const answer = await h.api('POST', `${LIST}/members/bulk-upsert`, { members });
    expectProblem(answer, 400, 'validation_failed', ['members']);
    expectProblem(await h.api('GET', LIST), 404, 'not_found');
  });
});
