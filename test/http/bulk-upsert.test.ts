// Bulk-upsert at its full size, many at once, and against a model of what a list is.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { someMembers, useHarness } from '../support/harness.ts';
import { ListModel, STRICTNESS, type Consent, type Given } from '../support/model/list.ts';
import { walk } from './tools.ts';

const h = useHarness();

const bulk = (list: string, members: object[]) =>
  h.api('POST', `/api/recipient-lists/${list}/members/bulk-upsert`, { members });
const membersOf = (list: string, status = 'active') =>
  walk(h.api, `/api/recipient-lists/${list}/members?status=${status}`, 'members', 1000);
const countContacts = async () => {
  const { rows } = await h.database.pool.query('select count(*)::integer as n from contacts');
  return rows[0].n as number;
};

describe('10,000 members in one call', () => {
  it('are created, then unchanged, then half of them updated', async () => {
    const members = someMembers(10_000, { metadata: { cohort: 7 } });
    const counts = async (given: object[]) => (await bulk('l', given)).body;
    expect(await counts(members)).toEqual({
      created: 10_000,
      updated: 0,
      unchanged: 0,
      rejected: [],
    });
    expect(await counts(members)).toMatchObject({ created: 0, updated: 0, unchanged: 10_000 });
    members.forEach((member, index) => {
      if (index % 2 === 0) member.name = 'New';
    });
    expect(await counts(members)).toMatchObject({ updated: 5_000, unchanged: 5_000 });
    const { body } = await h.api('GET', '/api/recipient-lists/l');
    expect(body.recipient_list.active_members).toBe(10_000);
  });

  it('are all moved to other keys by one call', async () => {
    const members = someMembers(10_000, { consent: 'pending' });
    await bulk('l', members);
    // Each contact takes its neighbour's key.
    const rotated = members.map(({ email }, index) => ({
      source_object_key: members[(index + 1) % members.length]!.source_object_key,
      email,
    }));
    const { body } = await bulk('l', rotated);
    expect(body).toEqual({ created: 0, updated: 10_000, unchanged: 0, rejected: [] });
    const { rows } = await h.database.pool.query(`
      select count(*)::integer as members, count(distinct contact_id)::integer as contacts,
        bool_and(consent = 'pending') as pending
      from list_members where removed_at is null`);
    expect(rows[0]).toEqual({ members: 10_000, contacts: 10_000, pending: true });
  });
});

describe('many calls at once', () => {
  const PEOPLE = 60;
  const emailOf = (person: number) => `p${person}@list.example`;

  it('over one list leave what one of them wrote, whole', async () => {
    // Call n gives every person another key, each call in another order.
    const mappings = Array.from({ length: 20 }, (_, n) =>
      Array.from({ length: PEOPLE }, (__, person) => ({
        source_object_key: `k${(person + n) % PEOPLE}`,
        email: emailOf(person),
        name: `call ${n}`,
      })),
    );
    const answers = await Promise.all(
      mappings.map((members, n) => bulk('l', n % 2 === 0 ? members : members.toReversed())),
    );
    expect(answers.map((answer) => answer.status)).toEqual(mappings.map(() => 200));
    const created = answers.map((answer) => answer.body.created as number);
    expect(created.reduce((sum, one) => sum + one, 0)).toBe(PEOPLE);
    const found = await membersOf('l');
    const winner = mappings.find((members) => members[0]!.name === found[0].name)!;
    expect(
      found.map(({ source_object_key, email, name }) => ({ source_object_key, email, name })),
    ).toEqual([...winner].sort((a, b) => (a.source_object_key < b.source_object_key ? -1 : 1)));
    expect(await countContacts()).toBe(PEOPLE);
  });

  it('over several lists share the contacts without a deadlock', async () => {
    const lists = ['a', 'b', 'c', 'd'];
    for (let round = 0; round < 3; round++) {
      const calls = Array.from({ length: 20 }, (_, n) => {
        // A window of people that overlaps its neighbours', walked forwards or backwards.
        const people = Array.from({ length: 40 }, (__, at) => (n * 7 + round * 20 + at) % 120);
        const members = people.map((person) => ({
          source_object_key: `k${person}`,
          email: emailOf(person),
          name: `round ${round} call ${n}`,
        }));
        return {
          list: lists[n % lists.length]!,
          members: n % 3 === 0 ? members.toReversed() : members,
        };
      });
      const answers = await Promise.all([
        ...calls.map(({ list, members }) => bulk(list, members)),
        // Beside them single writes to the same people, keys and lists.
        ...Array.from({ length: 20 }, (_, n) =>
          h.api('PUT', `/api/contacts/${emailOf(n * 6)}`, { name: `round ${round}` }),
        ),
        ...Array.from({ length: 20 }, (_, n) =>
          h.api('PUT', `/api/recipient-lists/${lists[n % 4]}/members/k${n * 5}`, {
            email: emailOf(n * 5),
          }),
        ),
      ]);
      for (const { status, body } of answers) {
        expect([200, 201], JSON.stringify(body)).toContain(status);
      }
    }
    for (const list of lists) {
      const found = await membersOf(list);
      for (const { source_object_key, email } of found) {
        expect(email).toBe(emailOf(Number(source_object_key.slice(1))));
      }
      expect(new Set(found.map((one) => one.email)).size).toBe(found.length);
    }
    expect(await countContacts()).toBe(120);
  });

  it('with removals, and with the list being deleted, answer and keep its rules', async () => {
    const members = someMembers(30);
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, n) => {
        if (n % 8 === 7) return h.api('DELETE', '/api/recipient-lists/l');
        if (n % 4 === 3) return h.api('DELETE', `/api/recipient-lists/l/members/m${n % 30}`);
        return bulk('l', members);
      }),
    );
    for (const { status, body } of answers) {
      expect([200, 204, 404], JSON.stringify(body)).toContain(status);
    }
    expect((await bulk('l', members)).status).toBe(200);
    expect(new Set((await membersOf('l')).map((one) => one.source_object_key))).toEqual(
      new Set(members.map((one) => one.source_object_key)),
    );
    expect(await countContacts()).toBe(30);
  });
});

describe('any order of upserts, moves and removals', () => {
  // Few keys and people, so that they meet often.
  const key = fc.constantFrom('k1', 'k2', 'k3', 'k4', 'k5', 'k6');
  const email = fc.constantFrom(
    'a@l.example',
    'A@L.example',
    'b@l.example',
    'c@l.example',
    'd@l.example',
  );
  const given: fc.Arbitrary<Given> = fc.record(
    {
      source_object_key: key,
      email,
      name: fc.constantFrom(null, 'N', 'M'),
      consent: fc.constantFrom<Consent>('subscribed', 'pending', 'unsubscribed'),
      metadata: fc.constantFrom<Record<string, unknown>>({}, { a: 1 }),
    },
    { requiredKeys: ['source_object_key', 'email'] },
  );
  type Step =
    | { kind: 'put'; member: Given }
    | { kind: 'bulk'; members: Given[] }
    | { kind: 'remove'; key: string };
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('put' as const), member: given }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('bulk' as const),
        members: fc.array(given, { maxLength: 6 }),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), key }) },
  );
  const shown = async (list: string, status: string) =>
    (await membersOf(list, status)).map((one) => ({
      key: one.source_object_key as string,
      email: one.email.toLowerCase() as string,
      name: one.name as string | null,
      consent: one.consent as Consent,
      metadata: one.metadata as object,
    }));

  /** Addresses the step gives a consent for. */
  function givenConsents(one: Step): Set<string> {
    const members = one.kind === 'put' ? [one.member] : one.kind === 'bulk' ? one.members : [];
    return new Set(
      members
        .filter((member) => member.consent !== undefined)
        .map((member) => member.email.toLowerCase()),
    );
  }

  /** Does the step to the list and to the model; what each of them answered. */
  async function take(list: string, model: ListModel, one: Step): Promise<[unknown, unknown]> {
    if (one.kind === 'remove') {
      model.remove(one.key);
      const { status } = await h.api('DELETE', `/api/recipient-lists/${list}/members/${one.key}`);
      return [status, 204];
    }
    if (one.kind === 'put') {
      const { source_object_key, ...fields } = one.member;
      const { created } = model.upsert([one.member]);
      const path = `/api/recipient-lists/${list}/members/${source_object_key}`;
      const { status } = await h.api('PUT', path, fields);
      return [status, created === 1 ? 201 : 200];
    }
    const { body } = await bulk(list, one.members);
    return [{ ...body, rejected: body.rejected?.length }, model.upsert(one.members)];
  }

  it('ends where the model ends', async () => {
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const list = `run-${run++}`;
        const model = new ListModel();
        await h.api('PUT', `/api/recipient-lists/${list}`, {});
        for (const one of steps) {
          const before = await shown(list, 'active');
          const [answer, expected] = await take(list, model, one);
          expect(answer).toEqual(expected);
          const active = await shown(list, 'active');
          const removed = await shown(list, 'removed');
          expect(active).toEqual(model.shown(false));
          expect(removed).toEqual(model.shown(true));
          // Without the model: a key stands once, a contact is active once.
          const keys = [...active, ...removed].map((row) => row.key);
          expect(new Set(keys).size).toBe(keys.length);
          expect(new Set(active.map((row) => row.email)).size).toBe(active.length);
          // And who only moved, without a consent given, has none that is looser.
          const given = givenConsents(one);
          const loosened = before.filter(({ email, consent }) => {
            const now = active.find((row) => row.email === email);
            return now && !given.has(email) && STRICTNESS[now.consent] < STRICTNESS[consent];
          });
          expect(loosened).toEqual([]);
        }
      }),
      // A failure prints its seed; SEED=<number> runs it again.
      { numRuns: 40, ...(process.env.SEED && { seed: Number(process.env.SEED) }) },
    );
  });
});
