// /api/contacts: people by address, with their suppression and their lists.
import { describe, expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { expectProblem, expectTimestamps } from './tools.ts';

const h = useHarness();

describe('PUT /api/contacts/{email}', () => {
  it('creates with 201, changes with 200, and leaves absent fields as they are', async () => {
    const created = await h.api('PUT', '/api/contacts/Ada@List.example', {
      name: 'Ada',
      consent: 'pending',
      attributes: { cohort: 7, tags: ['a', null, { deep: true }] },
    });
    expect(created.status).toBe(201);
    expect(created.body).toEqual({
      contact: {
        email: 'Ada@List.example',
        name: 'Ada',
        consent: 'pending',
        unsubscribed_at: null,
        attributes: { cohort: 7, tags: ['a', null, { deep: true }] },
        created_at: expect.any(String),
        updated_at: expect.any(String),
      },
    });
    expectTimestamps(created.body);
    const same = await h.api('PUT', '/api/contacts/ada@list.example', {});
    expect(same.status).toBe(200);
    expect(same.body.contact).toMatchObject({
      name: 'Ada',
      consent: 'pending',
      attributes: { cohort: 7 },
    });
    const changed = await h.api('PUT', '/api/contacts/ada@list.example', {
      name: null,
      consent: 'subscribed',
      attributes: {},
    });
    expect(changed.body.contact).toMatchObject({
      name: null,
      consent: 'subscribed',
      attributes: {},
      created_at: created.body.contact.created_at,
    });
  });

  it('takes a contact without consent for subscribed', async () => {
    const { body } = await h.api('PUT', '/api/contacts/ada@list.example', {});
    expect(body.contact).toMatchObject({ consent: 'subscribed', name: null, attributes: {} });
  });

  it('knows one mailbox under all its spellings', async () => {
    await h.api('PUT', '/api/contacts/j%C3%B6rg@m%C3%BCnchen.example', { name: 'Jörg' });
    for (const spelling of [
      'JÖRG@MÜNCHEN.example',
      'jörg@xn--mnchen-3ya.example',
      'jo\u0308rg@mu\u0308nchen.EXAMPLE', // decomposed
    ]) {
      const { status, body } = await h.api('GET', `/api/contacts/${encodeURIComponent(spelling)}`);
      expect([status, body.contact?.name], spelling).toEqual([200, 'Jörg']);
    }
  });

  it('creates once when called many times at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => h.api('PUT', '/api/contacts/ada@list.example', {})),
    );
    expect(answers.filter((answer) => answer.status === 201)).toHaveLength(1);
    expect(answers.filter((answer) => answer.status === 200)).toHaveLength(19);
  });

  it('never undoes what the recipient decided', async () => {
    await h.api('PUT', '/api/contacts/ada@list.example', {});
    await h.database.pool.query('update contacts set unsubscribed_at = now()');
    const { body } = await h.api('PUT', '/api/contacts/ada@list.example', {
      consent: 'subscribed',
    });
    expect(body.contact.consent).toBe('unsubscribed');
    expectTimestamps({ unsubscribed_at: body.contact.unsubscribed_at });
    const { body: read } = await h.api('GET', '/api/contacts/ada@list.example');
    expect(read.contact.consent).toBe('unsubscribed');
  });
});

describe('GET /api/contacts/{email}', () => {
  it('shows the contact, its suppression and the lists it is active in', async () => {
    for (const list of ['b', 'a', 'left', 'deleted']) {
      await h.api('PUT', `/api/recipient-lists/${list}/members/k-${list}`, {
        email: 'ada@list.example',
        ...(list === 'b' && { consent: 'pending' }),
      });
    }
    await h.api('DELETE', '/api/recipient-lists/left/members/k-left');
    await h.api('DELETE', '/api/recipient-lists/deleted');
    const { status, body } = await h.api('GET', '/api/contacts/ADA@list.example');
    expect(status).toBe(200);
    expect(body.contact.suppression).toBeNull();
    expect(body.contact.lists).toEqual([
      { list_key: 'a', source_object_key: 'k-a', consent: 'subscribed' },
      { list_key: 'b', source_object_key: 'k-b', consent: 'pending' },
    ]);
    await h.api('PUT', '/api/suppressions/ada@list.example', {
      reason: 'complaint',
      note: 'abuse',
    });
    const { body: suppressed } = await h.api('GET', '/api/contacts/ada@list.example');
    expect(suppressed.contact.suppression).toMatchObject({ reason: 'complaint', note: 'abuse' });
    expectTimestamps(suppressed.contact.suppression);
  });

  it('is 404 for an address nobody knows, 400 for what is no address', async () => {
    expectProblem(await h.api('GET', '/api/contacts/nobody@list.example'), 404, 'not_found');
    expectProblem(await h.api('GET', '/api/contacts/nobody'), 400, 'validation_failed', ['email']);
  });
});
