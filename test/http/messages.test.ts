// Reading messages: those of a send, one, and everything that went to an address.
import { describe, expect, it } from 'vitest';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { Reply } from '../support/smtp-sink.ts';
import { until } from '../support/until.ts';
import { expectProblem, expectTimestamps } from './tools.ts';

const h = useHarness();

const send = async (send_key: string, members: object[]) => {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend({ send_key }));
  return body.send.id as string;
};
const keysOf = (body: any) =>
  body.messages.map((one: { source_object_key: string }) => one.source_object_key).sort();

describe('GET /api/sends/{id}/messages', () => {
  it('shows each member with state, reason, attempts and the last SMTP reply', async () => {
    await h.api('PUT', '/api/suppressions/m3@list.example', { reason: 'manual' });
    h.sink.onRecipient = (address) =>
      address.startsWith('m2') ? new Reply(550, '5.1.1 no such user') : undefined;
    const id = await send('s', someMembers(3));
    await h.drain(id);
    const { body } = await h.api('GET', `/api/sends/${id}/messages`);
    expect(body.next_cursor).toBeNull();
    const byKey = Object.fromEntries(
      body.messages.map((one: { source_object_key: string }) => [one.source_object_key, one]),
    );
    const common = {
      id: expect.any(String),
      kind: 'list',
      send_id: id,
      template_key: 'homework-score-published',
      recipients: null,
      was_unknown: false,
      created_at: expect.any(String),
      next_attempt_at: null,
      settled_at: expect.any(String),
    };
    expect(byKey).toEqual({
      m1: {
        ...common,
        source_object_key: 'm1',
        email: 'm1@list.example',
        state: 'sent',
        reason: null,
        attempts: 1,
        last_reply: expect.stringMatching(/^250 /),
      },
      m2: {
        ...common,
        source_object_key: 'm2',
        email: 'm2@list.example',
        state: 'failed',
        reason: 'hard_bounce',
        attempts: 1,
        last_reply: '550 5.1.1 no such user',
      },
      m3: {
        ...common,
        source_object_key: 'm3',
        email: 'm3@list.example',
        state: 'skipped',
        reason: 'suppressed',
        attempts: 0,
        last_reply: null,
      },
    });
    expectTimestamps(body);
    for (const [state, expected] of [
      ['sent', ['m1']],
      ['failed', ['m2']],
      ['skipped', ['m3']],
      ['queued', []],
      ['sending', []],
      ['unknown', []],
    ] as const) {
      const page = await h.api('GET', `/api/sends/${id}/messages?state=${state}`);
      expect(keysOf(page.body), state).toEqual(expected);
    }
    expectProblem(
      await h.api('GET', `/api/sends/${id}/messages?state=delivered`),
      400,
      'validation_failed',
      ['state'],
    );
    const one = await h.api('GET', `/api/messages/${byKey.m2.id}`);
    expect([one.status, one.body]).toEqual([200, { message: byKey.m2 }]);
  });
});

describe('GET /api/messages/{id}', () => {
  it('is 404 for an id that is not there or is no id', async () => {
    for (const id of ['019af5d1-0000-7000-8000-000000000000', 'nothing', '%00', '1']) {
      expectProblem(await h.api('GET', `/api/messages/${id}`), 404, 'not_found', undefined, id);
    }
  });
});

describe('GET /api/messages?email=', () => {
  it('shows everything that went to an address, list and single, the newest first', async () => {
    const first = await send('s1', someMembers(2));
    await h.drain(first);
    const second = await send('s2', someMembers(2));
    await h.drain(second);
    const { body: test } = await h.api('POST', '/api/templates/default_template/test-send', {
      to: 'M1@List.example',
    });
    const worker = await h.startWorker();
    await until('the test mail to go out', async () => {
      const { body } = await h.api('GET', `/api/messages/${test.message.id}`);
      return body.message.state === 'sent';
    });
    await worker.stop();
    const { status, body } = await h.api('GET', '/api/messages?email=m1%40LIST.example');
    expect(status).toBe(200);
    expect(body.next_cursor).toBeNull();
    expect(body.messages.map((one: any) => [one.kind, one.send_id, one.source_object_key])).toEqual(
      [
        ['single', null, null],
        ['list', second, 'm1'],
        ['list', first, 'm1'],
      ],
    );
    expect(body.messages[0].recipients).toEqual([
      {
        kind: 'to',
        email: 'M1@List.example',
        state: 'sent',
        reason: null,
        last_reply: expect.stringMatching(/^250 /),
      },
    ]);
  });

  it('is an empty page for an address nothing went to', async () => {
    const { body } = await h.api('GET', '/api/messages?email=nobody@list.example');
    expect(body).toEqual({ messages: [], next_cursor: null });
  });

  it('needs the address', async () => {
    expectProblem(await h.api('GET', '/api/messages'), 400, 'validation_failed', ['email']);
    expectProblem(await h.api('GET', '/api/messages?email=x'), 400, 'validation_failed', ['email']);
  });
});
