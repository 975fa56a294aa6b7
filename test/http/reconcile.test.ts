// Reconciling: a list becomes what the call says, and nobody is taken off it by a typo.
import { describe, expect, it } from 'vitest';
import { someMembers, useHarness } from '../support/harness.ts';
import { allRows, expectProblem, walk } from './tools.ts';

const h = useHarness();
const PATH = '/api/recipient-lists/l/members';

const reconcile = (members: unknown, more: object = {}) =>
  h.api('POST', `${PATH}/reconcile`, { members, ...more });
const membersOf = (status = 'active') => walk(h.api, `${PATH}?status=${status}`, 'members', 1000);
const keysOf = async (status?: string) =>
  (await membersOf(status)).map((one: { source_object_key: string }) => one.source_object_key);
const member = (key: string, email = `${key}@list.example`, more: object = {}) => ({
  source_object_key: key,
  email,
  ...more,
});

describe('POST /api/recipient-lists/{key}/members/reconcile', () => {
  it('makes the list equal to the call, and makes it where it is missing', async () => {
    const first = await reconcile([member('a'), member('b'), member('c')]);
    expect([first.status, first.body]).toEqual([
      200,
      { created: 3, updated: 0, unchanged: 0, removed: 0, rejected: [] },
    ]);
    const { body } = await reconcile([
      member('a'),
      member('b', 'b@list.example', { name: 'B' }),
      member('d'),
    ]);
    expect(body).toEqual({ created: 1, updated: 1, unchanged: 1, removed: 1, rejected: [] });
    expect(await keysOf()).toEqual(['a', 'b', 'd']);
    expect(await keysOf('removed')).toEqual(['c']);
    expect((await reconcile([])).body).toMatchObject({ removed: 3 });
    expect(await keysOf()).toEqual([]);
    expect((await reconcile([])).body).toMatchObject({ removed: 0 });
  });

  it('leaves absent members where remove_absent is false', async () => {
    await reconcile([member('a'), member('b')]);
    const { body } = await reconcile([member('c')], { remove_absent: false });
    expect(body).toMatchObject({ created: 1, removed: 0 });
    expect(await keysOf()).toEqual(['a', 'b', 'c']);
  });

  it('does not count a person who moves to another key as removed', async () => {
    await reconcile([member('a'), member('b')]);
    const { body } = await reconcile([member('new', 'a@list.example'), member('b')]);
    expect(body).toEqual({ created: 1, updated: 0, unchanged: 1, removed: 0, rejected: [] });
    expect(await keysOf()).toEqual(['b', 'new']);
  });

  it('keeps the member a rejected row names by its key or its address', async () => {
    await reconcile(['a', 'b', 'c', 'd', 'e', 'f'].map((key) => member(key)));
    const { status, body } = await reconcile([
      member('a', 'no address'),
      { ...member('b'), unknown: 1 },
      { email: 'C@list.example' }, // the key was forgotten
      { source_object_key: 'x/y', email: 'd@list.example' },
      member('g'),
      member('g', 'e@list.example'), // stands twice, and the address is e's
      null,
    ]);
    expect(status).toBe(200);
    expect(body).toMatchObject({ created: 1, updated: 0, unchanged: 0, removed: 1 });
    expect(body.rejected.map((one: { index: number }) => one.index)).toEqual([0, 1, 2, 3, 5, 6]);
    expect(body.rejected[0]).toEqual({
      index: 0,
      source_object_key: 'a',
      message: expect.stringContaining('email: must be'),
    });
    expect(await keysOf()).toEqual(['a', 'b', 'c', 'd', 'e', 'g']);
    expect(await keysOf('removed')).toEqual(['f']);
  });

  it('with dry_run counts what it would do, and writes nothing', async () => {
    const calls = [
      [member('a'), member('b'), member('bad', 'x'), member('c', 'b@list.example')],
      [member('b', 'a@list.example'), member('z'), member('a', 'A@list.example')],
      [],
    ];
    for (const members of calls) {
      const before = await allRows(h);
      const dry = await reconcile(members, { dry_run: true });
      expect(await allRows(h)).toEqual(before);
      expect(await reconcile(members)).toMatchObject({ status: 200, body: dry.body });
    }
    const before = await allRows(h);
    const dry = await h.api('POST', '/api/recipient-lists/new/members/reconcile', {
      members: [member('a')],
      dry_run: true,
    });
    expect(dry.body).toMatchObject({ created: 1 });
    expect(await allRows(h)).toEqual(before);
    expectProblem(await h.api('GET', '/api/recipient-lists/new'), 404, 'not_found');
  });

  it('takes 50,000 members, and no more', async () => {
    const members = someMembers(50_001);
    expectProblem(await reconcile(members), 400, 'validation_failed', ['members']);
    members.pop();
    expect((await reconcile(members)).body).toMatchObject({ created: 50_000, removed: 0 });
    expect((await reconcile(members)).body).toMatchObject({ unchanged: 50_000, removed: 0 });
    expect((await reconcile(members.slice(0, 10))).body).toMatchObject({
      unchanged: 10,
      removed: 49_990,
    });
  });

  it('refuses flags that are not true or false', async () => {
    for (const name of ['remove_absent', 'dry_run']) {
      for (const value of ['true', 1, null]) {
        expectProblem(await reconcile([], { [name]: value }), 400, 'validation_failed', [name]);
      }
    }
  });
});
