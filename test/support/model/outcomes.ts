// What may become of a member's message, from the worlds that were true while a worker could look at it.
// Where the order of two things is not determined, several outcomes may; another one never may.
import { OMITTED } from './calls.ts';
import type { SendModel, World } from './world.ts';

/** A member of a snapshot as it was last seen. */
export interface Before {
  /** Null where its message was not made yet. */
  state: string | null;
  reason: string | null;
  was_unknown: boolean;
}

export interface Circumstances {
  /** A retry of the send was under way. */
  retried: boolean;
  /** A worker has been killed. */
  killed: boolean;
}

/** As `state` or `state:reason`. */
export function outcomesOf(
  worlds: readonly World[],
  sendKey: string,
  memberKey: string,
  before: Before,
  circumstances: Circumstances,
): Set<string> {
  const allowed = new Set<string>();
  for (const world of worlds) {
    const send = world.sends.get(sendKey);
    if (!send) continue;
    const tried = triedOutcomes(world, send, memberKey, before, circumstances);
    const add = (outcomes: string[]) => outcomes.forEach((one) => allowed.add(one));
    const inDoubt = before.was_unknown || tried.includes('unknown');
    if (before.state === 'sending') add(tried);
    if (send.cancelled) {
      const reason = skipReasonOf(world, send, memberKey);
      if (before.state !== null || worlds.some((one) => !one.sends.get(sendKey)?.cancelled))
        add(['skipped:cancelled', ...(inDoubt ? ['unknown'] : [])]);
      if (before.state === null) add([`skipped:${reason ?? 'cancelled'}`]);
    } else if (!send.paused && !send.scheduled) {
      const reason = skipReasonOf(world, send, memberKey);
      if (!reason) add(tried);
      // What may have been delivered was not skipped.
      else
        add([
          before.was_unknown ? 'unknown' : `skipped:${reason}`,
          ...(inDoubt ? ['unknown'] : []),
        ]);
    }
  }
  if (before.was_unknown)
    for (const one of allowed) if (one.startsWith('skipped')) allowed.delete(one);
  return allowed;
}

/** The first reason that applies; null where the member may be mailed. */
function skipReasonOf(world: World, send: SendModel, memberKey: string): string | null {
  const person = world.people.get(send.members.get(memberKey)!)!;
  if (person.erased) return 'suppressed';
  const suppression = world.suppressions.get(person.email);
  if (suppression?.reason)
    return suppression.reason === 'manual' ? 'suppressed' : suppression.reason;
  if (send.template === 'score') return null;
  if (person.leftAll || suppression?.left || person.leftLists.has(send.list)) return 'unsubscribed';
  const rows = world.list(send.list).rows;
  const today = [...rows.values()].find((row) => !row.removed && row.email === person.email);
  const then = rows.get(memberKey);
  const consent = today?.consent ?? (then?.email === person.email ? then.consent : undefined);
  if (consent === 'unsubscribed') return 'unsubscribed';
  return consent === 'pending' ? 'consent_pending' : null;
}

function triedOutcomes(
  world: World,
  send: SendModel,
  memberKey: string,
  before: Before,
  { retried, killed }: Circumstances,
): string[] {
  const { email } = world.people.get(send.members.get(memberKey)!)!;
  const tried = [...served(email), ...(killed ? ['unknown'] : [])];
  if (!send.byCallback || !world.omits || !OMITTED.includes(memberKey)) return tried;
  const isFetched = before.state !== null && before.reason !== 'context_missing' && !retried;
  if (isFetched) return tried;
  return before.state === null ? ['failed:context_missing'] : ['failed:context_missing', ...tried];
}

/** What the mail server makes of the address. */
function served(email: string): string[] {
  if (email.startsWith('bounce')) return ['failed:hard_bounce'];
  if (email.startsWith('refused')) return ['failed:refused_by_server'];
  return email.startsWith('vanish') ? ['unknown'] : ['sent'];
}
