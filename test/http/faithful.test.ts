// What only looks hostile is taken, and comes back as it was given.
import { describe, expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { ENDPOINTS } from './endpoints.ts';

const h = useHarness();

describe('what only looks hostile', () => {
  const kept = {
    constructor: { prototype: { polluted: 1 } },
    prototype: { polluted: true },
    toString: 'x',
    hasOwnProperty: null,
    valueOf: [1],
    __defineGetter__: 'x',
    $where: "'; drop table clients; --",
    '': 'empty name',
    'a.b': { 'c/d': 1 },
    '🎓\u200b\ufffd\u202e': '\u0001\u001f\u007f\r\n\t\u2028',
    numbers: [2 ** 53, 1e308, 5e-324, -1.5, 0.1, 1e21],
    deep: JSON.parse('['.repeat(60) + ']'.repeat(60)) as unknown,
    long: 'x'.repeat(100_000),
  };

  it('is taken in free objects, and comes back as it was given', async () => {
    const { body: list } = await h.api('PUT', '/api/recipient-lists/made', { metadata: kept });
    expect(list.recipient_list.metadata).toEqual(kept);
    const { body: contact } = await h.api('PUT', '/api/contacts/a@b.example', { attributes: kept });
    expect(contact.contact.attributes).toEqual(kept);
    const { body: member } = await h.api('PUT', '/api/recipient-lists/made/members/m', {
      email: 'a@b.example',
      metadata: kept,
    });
    expect(member.member.metadata).toEqual(kept);
    await h.api('POST', '/api/recipient-lists/made/members/bulk-upsert', {
      members: [{ source_object_key: 'constructor', email: 'c@d.example', metadata: kept }],
    });
    const { body: page } = await h.api('GET', '/api/recipient-lists/made/members');
    expect(page.members.map((one: { metadata: unknown }) => one.metadata)).toEqual([kept, kept]);
    const { status, body: send } = await h.api('POST', '/api/recipient-lists/made/send', {
      send_key: 's',
      template_key: 'default_template',
      shared_context: kept,
      recipient_context: { constructor: kept, m: {} },
      metadata: kept,
    });
    expect(status).toBe(202);
    expect(send.send.metadata).toEqual(kept);
    // -0 and 2^63 are numbers of JSON; they are kept as JavaScript and PostgreSQL know them.
    const raw = await h.api(
      'PUT',
      '/api/recipient-lists/made',
      '{"metadata":{"zero":-0,"big":9223372036854775808,"small":1e-999}}',
    );
    expect(raw.body.recipient_list.metadata).toEqual({ zero: 0, big: 2 ** 63, small: 0 });
  });

  it('is every request of the table of endpoints, as it stands there', async () => {
    await h.api('PUT', '/api/recipient-lists/seeded/members/m1', { email: 'm1@list.example' });
    const withBody = ENDPOINTS.filter((endpoint) => endpoint.body && !endpoint.missing);
    for (const { method, path, body } of withBody) {
      const answer = await h.api(method, path, body);
      const label = `${method} ${path} → ${JSON.stringify(answer.body)}`;
      expect([200, 201, 202], label).toContain(answer.status);
      expect(answer.body.rejected ?? [], label).toEqual([]);
    }
    // Also with the type's parameters, in capitals, and behind a byte order mark.
    const [{ method, path, body }] = withBody as [(typeof withBody)[0]];
    for (const type of [
      'application/json; charset=utf-8',
      'APPLICATION/JSON',
      'application/json ;x=y',
    ]) {
      const answer = await h.api(method, path, `\ufeff${JSON.stringify(body)}`, {
        'content-type': type,
      });
      expect(answer.status, type).toBe(200);
    }
  });
});
