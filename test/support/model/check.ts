// What is held to the worlds message by message: how each has changed since the last look, and the mails
// that the mail server has accepted for it.
import { expect } from 'vitest';
import type { Journal } from '../journal.ts';
import { EMAILS } from './calls.ts';
import { memberKeys } from './fit.ts';
import type { Observation, SeenMember, SeenSend } from './observe.ts';
import { outcomesOf } from './outcomes.ts';
import type { World } from './world.ts';

const SETTLED = new Set(['sent', 'failed', 'skipped', 'unknown']);

/** By send and position: who a member was before an erasure. */
export interface Ledger {
  keys: Map<string, string>;
  addresses: Map<string, string>;
}

export interface Interval {
  /** True at some time of it. */
  passed: World[];
  /** Also those since the worker began: a callback's contexts are asked for long before they are stored. */
  sinceStart: World[];
  before: Observation;
  seen: Observation;
  worked: boolean;
  killed: boolean;
  /** Sends that a retry was called for. */
  retries: ReadonlySet<string>;
}

/** Nothing that is settled changes but by a retry, and what settles may do so in one of these worlds. */
export function checkMessages(ledger: Ledger, interval: Interval): void {
  for (const send of interval.seen.sends) {
    const place = (position: number) => `${send.id} ${position}`;
    const keys = memberKeys(interval.passed, send, (one) => ledger.keys.get(place(one)));
    const before = interval.before.sends.find((one) => one.id === send.id);
    for (const member of send.members) {
      const key = keys.get(member.position);
      if (key) ledger.keys.set(place(member.position), key);
      if (member.email) ledger.addresses.set(place(member.position), member.email);
      const was = before?.members.find((one) => one.position === member.position);
      checkMessage(send, member, was, key, interval);
    }
  }
}

function checkMessage(
  send: SeenSend,
  member: SeenMember,
  was: SeenMember | undefined,
  key: string | undefined,
  { passed, sinceStart, worked, killed, retries }: Interval,
): void {
  const isRetried = retries.has(send.send_key);
  const what = `${send.send_key} ${key} ${member.email}: ${was?.state}:${was?.reason} -> ${member.state}:${member.reason}`;
  if (was?.message_id) expect(member.message_id, what).toBe(was.message_id);
  if (was?.was_unknown) expect(member.was_unknown, what).toBe(true);
  const isAgain = isRetried && was?.state === 'failed' && was.reason !== 'hard_bounce';
  if (was?.state && SETTLED.has(was.state)) {
    const isSame = was.state === member.state && was.reason === member.reason;
    if (!isAgain) expect(isSame, `${what} was settled`).toBe(true);
    if (isSame) return;
  }
  if (!member.state || !SETTLED.has(member.state)) return;
  expect(worked, `${what}: without a worker`).toBe(true);
  if (!key) return; // triggered and erased at once: who it was is gone
  const isByCallback = passed.some((one) => one.sends.get(send.send_key)?.byCallback);
  const outcomes = outcomesOf(
    isByCallback ? sinceStart : passed,
    send.send_key,
    key,
    {
      state: isAgain ? 'queued' : (was?.state ?? null),
      reason: was?.reason ?? null,
      was_unknown: was?.was_unknown ?? false,
    },
    { retried: isRetried, killed },
  );
  const isBare = member.state === 'sent' || member.state === 'unknown';
  const outcome = isBare ? member.state : `${member.state}:${member.reason}`;
  expect([...outcomes], what).toContain(outcome);
}

/** While nobody delivers: each message went to its person only, once, or twice where it was unknown. */
export function checkMails(
  journal: Journal,
  { addresses }: Ledger,
  { sends }: Observation,
  world: World,
): void {
  let accepted = 0;
  for (const send of sends) {
    // Marketing mail whose outcome is unknown is held, not sent once more.
    const most = world.sends.get(send.send_key)!.template === 'newsletter' ? 1 : 2;
    for (const { position, message_id, state, was_unknown, key } of send.members) {
      if (!message_id) continue;
      const mails = EMAILS.reduce((sum, email) => sum + journal.count(message_id, email), 0);
      const address = addresses.get(`${send.id} ${position}`);
      const what = `mails of ${send.send_key} ${key} ${address} ${state}`;
      accepted += mails;
      if (address) expect(journal.count(message_id, address), what).toBe(mails);
      if (was_unknown || state === 'sending') expect(mails, what).toBeLessThanOrEqual(most);
      else expect(mails, what).toBe(state === 'sent' ? 1 : 0);
      if (state === 'sent') expect(mails, what).toBeGreaterThan(0);
    }
  }
  expect(journal.accepted, 'mails to nobody of a snapshot').toBe(accepted);
}
