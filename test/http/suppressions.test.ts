// /api/suppressions: addresses that get no mail.
import { describe, expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { expectProblem, expectTimestamps } from './tools.ts';

const h = useHarness();
const PATH = '/api/suppressions/Ada@List.example';

describe('/api/suppressions', () => {
  it('creates with 201, changes with 200, lists and deletes with 204', async () => {
    const created = await h.api('PUT', PATH, { reason: 'manual', note: 'asked by phone' });
    expect(created.status).toBe(201);
    expect(created.body).toEqual({
      suppression: {
        email: 'ada@list.example',
        reason: 'manual',
        note: 'asked by phone',
        created_at: expect.any(String),
        updated_at: expect.any(String),
      },
    });
    expectTimestamps(created.body);
    const changed = await h.api('PUT', '/api/suppressions/ada@LIST.example', {
      reason: 'complaint',
    });
    expect(changed.status).toBe(200);
    expect(changed.body.suppression).toMatchObject({ reason: 'complaint', note: 'asked by phone' });
    const cleared = await h.api('PUT', PATH, { reason: 'complaint', note: null });
    expect(cleared.body.suppression.note).toBeNull();
    const listed = await h.api('GET', '/api/suppressions');
    expect(listed.body).toEqual({ suppressions: [cleared.body.suppression], next_cursor: null });
    const deleted = await h.api('DELETE', PATH);
    expect([deleted.status, deleted.body]).toEqual([204, undefined]);
    expectProblem(await h.api('DELETE', PATH), 404, 'not_found');
    expect((await h.api('GET', '/api/suppressions')).body.suppressions).toEqual([]);
  });

  it('needs a reason it knows', async () => {
    expectProblem(await h.api('PUT', PATH, {}), 400, 'validation_failed', ['reason']);
    expectProblem(await h.api('PUT', PATH, { reason: 'bored' }), 400, 'validation_failed', [
      'reason',
    ]);
  });

  it('can suppress an address that is no contact yet, in all its spellings', async () => {
    await h.api('PUT', '/api/suppressions/j%C3%B6rg@m%C3%BCnchen.example', { reason: 'manual' });
    const { body } = await h.api('PUT', '/api/contacts/J%C3%96RG@xn--mnchen-3ya.example', {});
    const { body: read } = await h.api(
      'GET',
      `/api/contacts/${encodeURIComponent(body.contact.email)}`,
    );
    expect(read.contact.suppression.reason).toBe('manual');
  });
});
