// Keyset paging, the same over every list: pages join without gap or repetition, whatever is added
// meanwhile, and a cursor that is not ours is refused.
import fc from 'fast-check';
import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { page } from '../../src/paging.ts';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { until } from '../support/until.ts';
import { expectProblem, walk } from './tools.ts';

const h = useHarness();

const COUNT = 7;

interface PagedList {
  plural: string;
  /** Makes rows (`from` to `from + count - 1`); gives the path of the list. */
  fill: (from: number, count: number) => Promise<string>;
  /** What tells two rows apart. */
  keyOf: (row: any) => string;
}

const numbers = (from: number, count: number) =>
  Array.from({ length: count }, (_, index) => from + index);

/** The newest of a list that stands newest first come in front of where the reader is. */
const LISTS: Record<string, PagedList> = {
  senders: {
    plural: 'senders',
    keyOf: (row) => row.id,
    fill: async (from, count) => {
      for (const n of numbers(from, count))
        await h.api('PUT', `/api/senders/s${n}`, { email: 's@school.example' });
      return '/api/senders';
    },
  },
  suppressions: {
    plural: 'suppressions',
    keyOf: (row) => row.email,
    fill: async (from, count) => {
      for (const n of numbers(from, count))
        await h.api('PUT', `/api/suppressions/p${n}@list.example`, { reason: 'manual' });
      return '/api/suppressions';
    },
  },
  lists: {
    plural: 'recipient_lists',
    keyOf: (row) => row.key,
    fill: async (from, count) => {
      for (const n of numbers(from, count)) await h.api('PUT', `/api/recipient-lists/l${n}`, {});
      return '/api/recipient-lists';
    },
  },
  'active members': {
    plural: 'members',
    keyOf: (row) => row.source_object_key,
    fill: async (from, count) => {
      await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
        members: someMembers(from + count - 1),
      });
      return '/api/recipient-lists/l/members';
    },
  },
  'removed members': {
    plural: 'members',
    keyOf: (row) => row.source_object_key,
    fill: async (from, count) => {
      for (const n of numbers(from, count)) {
        const path = `/api/recipient-lists/l/members/m${n}`;
        await h.api('PUT', path, { email: `m${n}@list.example` });
        await h.api('DELETE', path);
      }
      return '/api/recipient-lists/l/members?status=removed';
    },
  },
  sends: {
    plural: 'sends',
    keyOf: (row) => row.send_key,
    fill: async (from, count) => {
      await h.api('PUT', '/api/recipient-lists/l', {});
      for (const n of numbers(from, count))
        await h.api('POST', '/api/recipient-lists/l/send', scoreSend({ send_key: `s${n}` }));
      return '/api/sends?list_key=l&state=queued';
    },
  },
  'messages to an address': {
    plural: 'messages',
    keyOf: (row) => row.id,
    fill: async (from, count) => {
      for (const _ of numbers(from, count))
        await h.api('POST', '/api/templates/default_template/test-send', { to: 'a@list.example' });
      return '/api/messages?email=a@list.example';
    },
  },
};

describe.each(Object.entries(LISTS))('%s', (_name, { plural, fill, keyOf }) => {
  it('come whole in pages of 1, 2 and 3, each row once, in one order', async () => {
    const path = await fill(1, COUNT);
    const { body } = await h.api('GET', path);
    expect(body.next_cursor).toBeNull();
    const whole = body[plural].map(keyOf);
    expect(new Set(whole).size).toBe(whole.length);
    expect(whole.length).toBeGreaterThanOrEqual(COUNT);
    for (const limit of [1, 2, 3]) {
      expect((await walk(h.api, path, plural, limit)).map(keyOf), `limit ${limit}`).toEqual(whole);
    }
    // A page that ends with the last row says so.
    const exact = await h.api(
      'GET',
      `${path}${path.includes('?') ? '&' : '?'}limit=${whole.length}`,
    );
    expect([exact.body[plural].length, exact.body.next_cursor]).toEqual([whole.length, null]);
  });

  it('keep their rows while others are added between two pages', async () => {
    const path = await fill(1, COUNT);
    const and = path.includes('?') ? '&' : '?';
    const before: string[] = (await h.api('GET', path)).body[plural].map(keyOf);
    const first = await h.api('GET', `${path}${and}limit=3`);
    await fill(COUNT + 1, 3);
    const rest = await walk(h.api, path, plural, 100);
    const after = new Set(rest.map(keyOf));
    for (const key of before) expect(after).toContain(key);
    const seen: string[] = first.body[plural].map(keyOf);
    let cursor: string | null = first.body.next_cursor;
    while (cursor !== null) {
      const { body } = await h.api('GET', `${path}${and}limit=2&cursor=${cursor}`);
      seen.push(...body[plural].map(keyOf));
      cursor = body.next_cursor;
    }
    expect(new Set(seen).size, 'no row twice').toBe(seen.length);
    expect(
      before.filter((key) => !seen.includes(key)),
      'no row left out',
    ).toEqual([]);
  });

  it('refuse a limit or cursor that is none', async () => {
    const path = await fill(1, 1);
    const and = path.includes('?') ? '&' : '?';
    const pad = 'A'.repeat(5_000);
    for (const limit of [
      '0',
      '1001',
      '-1',
      'abc',
      '',
      '1.5',
      '1e2',
      '+1',
      '%201',
      '٣',
      '0x10',
      pad,
    ]) {
      const answer = await h.api('GET', `${path}${and}limit=${limit}`);
      expectProblem(answer, 400, 'validation_failed', ['limit'], `limit=${limit}`);
    }
    const cursors = [
      '',
      'abc',
      '!!!',
      '%00',
      '%F0%9F%8E%93',
      pad,
      ...[
        'null',
        '[]',
        '[null]',
        '{}',
        '[{}]',
        '[true]',
        '["a","b"]',
        '"a"',
        '["\\u0000"]',
        '[1e999]',
      ]
        .concat(['["\\ud800"]', '[-1]', '[1.5]', '[99999999999]', '[[]]', ' ["a"]', '["a"'])
        .map((text) => Buffer.from(text).toString('base64url')),
      Buffer.from([0x5b, 0x22, 0xff, 0x22, 0x5d]).toString('base64url'),
    ];
    for (const cursor of cursors) {
      const answer = await h.api('GET', `${path}${and}cursor=${cursor}`);
      expectProblem(answer, 400, 'validation_failed', ['cursor'], `cursor=${cursor}`);
    }
    for (const limit of ['1', '1000', '007']) {
      expect((await h.api('GET', `${path}${and}limit=${limit}`)).status, limit).toBe(200);
    }
  });
});

it('pages the messages of a send in the order of the snapshot, by state too', async () => {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', {
    members: someMembers(COUNT),
  });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  const worker = await h.startWorker({ lanes: ['prepare'] });
  const path = `/api/sends/${body.send.id}/messages`;
  await until('all messages to be made', async () => {
    const { body: all } = await h.api('GET', path);
    return all.messages.length === COUNT;
  });
  await worker.stop();
  const whole = (await h.api('GET', path)).body.messages;
  for (const limit of [1, 2, 3]) {
    expect(await walk(h.api, path, 'messages', limit)).toEqual(whole);
    expect(await walk(h.api, `${path}?state=queued`, 'messages', limit)).toEqual(whole);
    expect(await walk(h.api, `${path}?state=sent`, 'messages', limit)).toEqual([]);
  }
  expectProblem(await h.api('GET', `${path}?cursor=WyJhIl0`), 400, 'validation_failed', ['cursor']);
});

it('pages the templates', async () => {
  const whole = (await h.api('GET', '/api/templates')).body.templates;
  for (const limit of [1, 2, 3]) {
    expect(await walk(h.api, '/api/templates', 'templates', limit)).toEqual(whole);
  }
});

it('pages keys with any characters a key may have', async () => {
  const keys = [
    '\\u0000',
    '\ufffd',
    'a"b',
    '[]',
    '🎓',
    'ü',
    ' ',
    '%00',
    '\u200b',
    "'",
    '__proto__',
  ];
  for (const key of keys) await h.api('PUT', `/api/recipient-lists/${encodeURIComponent(key)}`, {});
  const rows = await walk(h.api, '/api/recipient-lists', 'recipient_lists', 1);
  expect(rows).toHaveLength(keys.length);
  expect(new Set(rows.map((row) => row.key))).toEqual(new Set(keys));
});

it('shows 100 rows where no limit is given', async () => {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(101) });
  const { body } = await h.api('GET', '/api/recipient-lists/l/members');
  expect(body.members).toHaveLength(100);
  expect(body.next_cursor).toEqual(expect.any(String));
});

describe('page()', () => {
  const rowsOf = (keys: string[]) => (after: [string] | undefined, limit: number) =>
    Promise.resolve(keys.filter((key) => after === undefined || key > after[0]).slice(0, limit));
  const read = (keys: string[], cursor: string | undefined, limit: number) =>
    page({ cursor, limit }, [v.string()], (key: string) => [key] as [string], rowsOf(keys));

  it('walks any keys, in pages of any size, without gap or repetition', async () => {
    const key = fc.string({ unit: 'binary', minLength: 1 }).filter((text) => !text.includes('\0'));
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(key), fc.integer({ min: 1, max: 5 }), async (keys, limit) => {
        keys.sort();
        const seen: string[] = [];
        let cursor: string | undefined;
        do {
          const found = await read(keys, cursor, limit);
          seen.push(...found.rows);
          cursor = found.next_cursor ?? undefined;
        } while (cursor !== undefined);
        expect(seen).toEqual(keys);
      }),
    );
  });

  it('takes no other text for a cursor', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), fc.base64String()), async (cursor) => {
        await expect(read(['a', 'b'], cursor, 1)).rejects.toMatchObject({
          code: 'validation_failed',
          errors: [{ path: 'cursor' }],
        });
      }),
    );
  });
});
