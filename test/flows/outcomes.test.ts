// What each signal of a mail server means: for the message, and for mail beside it.
import { expect, it } from 'vitest';
import { outcomeFor, troublesOf, type Signal, type Stage } from '../../src/smtp/signal.ts';

const TO = 'ada@list.example';
const refused = (stage: Stage, text: string): Signal => {
  const reply = { code: Number(text.slice(0, 3)), text };
  return {
    kind: 'refused',
    stage,
    reply,
    refused: stage === 'rcpt' ? [{ ...reply, address: TO }] : [],
  };
};
const lost = (stage: Stage, handedOver = false): Signal => ({
  kind: 'lost',
  stage,
  handedOver,
  error: 'gone',
  refused: [],
});

/** Signal, what becomes of the message, and what is stopped or slowed beside it. */
const TABLE: [Signal, string, string?][] = [
  [lost('connect'), 'deferred connection_failed'],
  [lost('mail'), 'deferred connection_failed'],
  [lost('mail', true), 'unknown connection_lost'],
  [
    refused('connect', '421 4.3.2 too many connections'),
    'deferred deferred_by_server',
    'transport slowed',
  ],
  [refused('connect', '450 4.3.2 not now'), 'deferred deferred_by_server', 'transport slowed'],
  [
    refused('connect', '554 5.7.1 your address is blocked'),
    'held connection_refused',
    'transport connection_refused',
  ],
  [refused('auth', '535 5.7.8 wrong password'), 'held login_refused', 'transport login_refused'],
  [refused('auth', '454 4.7.0 not now'), 'held login_refused', 'transport login_refused'],
  [refused('mail', '451 4.3.0 not now'), 'deferred deferred_by_server'],
  [refused('mail', '421 4.7.0 slow down'), 'deferred deferred_by_server', 'transport slowed'],
  [refused('mail', '454 Throttling failure'), 'deferred deferred_by_server', 'transport slowed'],
  [
    refused('mail', '550 5.7.1 sender not verified'),
    'held sender_refused',
    'sender sender_refused',
  ],
  [refused('mail', '553 no'), 'held sender_refused', 'sender sender_refused'],
  [refused('mail', '552 5.2.3 too large'), 'failed refused_by_server'],
  [refused('mail', '550 5.3.4 too large'), 'failed refused_by_server'],
  [refused('rcpt', '450 4.2.0 greylisted'), 'deferred deferred_by_server'],
  [refused('rcpt', '450 4.7.1 Greylisting in action'), 'deferred deferred_by_server'],
  [refused('rcpt', '452 4.2.2 mailbox full'), 'deferred deferred_by_server'],
  [refused('rcpt', '450 4.7.1 too much from you'), 'deferred deferred_by_server', 'domain slowed'],
  [refused('rcpt', '421 4.7.0 try later'), 'deferred deferred_by_server', 'domain slowed'],
  [
    refused('rcpt', '454 Throttling failure: maximum rate'),
    'deferred deferred_by_server',
    'transport slowed',
  ],
  [refused('rcpt', '550 5.1.1 no such user'), 'failed hard_bounce suppress'],
  [refused('rcpt', '550-5.1.1 no such user'), 'failed hard_bounce suppress'],
  [refused('rcpt', '550 5.1.2 no such host'), 'failed hard_bounce suppress'],
  [refused('rcpt', '551 5.1.6 moved'), 'failed hard_bounce suppress'],
  [refused('rcpt', '556 5.1.10 null MX'), 'failed hard_bounce suppress'],
  [refused('rcpt', '550 5.7.1 blocked by policy'), 'failed refused_by_server'],
  [refused('rcpt', '550 5.2.1 disabled'), 'failed refused_by_server'],
  [refused('rcpt', '550 no such user, version 5.1.1'), 'failed refused_by_server'],
  [refused('data', '554 5.5.1 no valid recipients'), 'failed refused_by_server'],
  [refused('data', '451 4.3.0 not now'), 'deferred deferred_by_server'],
  [refused('body', '550 5.1.1 no such user'), 'failed refused_by_server'],
  [refused('body', '554 5.7.1 looks like spam'), 'failed refused_by_server'],
  [refused('body', '451 4.7.650 too much'), 'deferred deferred_by_server', 'transport slowed'],
  [{ kind: 'withheld', reason: 'domain_busy', text: 'busy' }, 'held domain_busy'],
  [{ kind: 'accepted', reply: '250 ok', refused: [] }, 'sent'],
];

const words = (...all: (string | false | undefined)[]) => all.filter(Boolean).join(' ');

it.each(TABLE)('%j: %s', (signal, outcome, trouble = '') => {
  const found = outcomeFor(signal, TO);
  expect(
    words(
      found.kind,
      'reason' in found && found.reason,
      found.kind === 'failed' && found.suppress && 'suppress',
    ),
  ).toBe(outcome);
  expect(
    troublesOf(signal)
      .map((one) => `${one.scope} ${one.reason}`)
      .join(),
  ).toBe(trouble);
});

it('is exact where some recipients are refused and others taken', () => {
  const signal: Signal = {
    kind: 'accepted',
    reply: '250 ok',
    refused: [
      { address: 'b@list.example', code: 550, text: '550 5.1.1 no such user' },
      { address: 'c@slow.example', code: 450, text: '450 4.7.1 too much from you' },
    ],
  };
  expect(outcomeFor(signal, TO)).toMatchObject({ kind: 'sent' });
  expect(outcomeFor(signal, 'b@list.example')).toMatchObject({ kind: 'failed', suppress: true });
  expect(outcomeFor(signal, 'c@slow.example')).toMatchObject({ kind: 'deferred' });
  expect(troublesOf(signal)).toMatchObject([{ scope: 'domain', domain: 'slow.example' }]);
});
