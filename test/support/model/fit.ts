// Whether what is seen can be what a world says: lists, people, suppressions, snapshots and the states of
// sends. Workers change the world, too: they suppress addresses that bounce.
import type { Observation, SeenSend } from './observe.ts';
import type { World } from './world.ts';

/** The world with what workers have done since: a pause is over where the send is completed. */
export function catchUp(world: World, seen: Observation, worked: boolean): World {
  if (!worked) return world;
  const after = world.clone();
  for (const { send_key, state } of seen.sends) {
    const send = after.sends.get(send_key);
    if (send && state === 'completed') send.paused = false;
  }
  for (const { email, reason, left, has_address } of seen.suppressions) {
    if (!email.startsWith('bounce@') || reason !== 'hard_bounce') continue;
    if (after.suppressions.get(email)?.reason) continue;
    after.suppressions.set(email, { reason, left, hasAddress: has_address });
  }
  return after;
}

/** What does not fit; undefined where all does. */
export function misfitOf(world: World, seen: Observation): string | undefined {
  return (
    differs('rows', rowsOf(world), seen.rows, byKey) ??
    differs('people', peopleOf(world), seen.people, (one) => one.email) ??
    differs('suppressions', suppressionsOf(world), seen.suppressions, (one) => one.email) ??
    sendsDiffer(world, seen)
  );
}

const byKey = (row: { list: string; key: string }) => `${row.list} ${row.key}`;

function differs<Item>(
  what: string,
  expected: Item[],
  found: Item[],
  order: (item: Item) => string,
): string | undefined {
  const text = (items: Item[]) =>
    JSON.stringify([...items].sort((a, b) => (order(a) < order(b) ? -1 : 1)));
  return text(expected) === text(found)
    ? undefined
    : `${what}: ${text(found)} instead of ${text(expected)}`;
}

function rowsOf(world: World) {
  return [...world.lists].flatMap(([list, model]) =>
    [...model.rows].map(([key, { email, consent, name, removed }]) => ({
      list,
      key,
      email,
      consent,
      name,
      removed,
    })),
  );
}

function peopleOf(world: World) {
  return [...world.people.values()]
    .filter((one) => !one.erased)
    .map(({ email, leftAll, leftLists }) => ({
      email,
      left_all: leftAll,
      left_lists: [...leftLists].sort(),
    }));
}

function suppressionsOf(world: World) {
  return [...world.suppressions].map(([email, { reason, left, hasAddress }]) => ({
    email,
    reason,
    left,
    has_address: hasAddress,
  }));
}

function sendsDiffer(world: World, seen: Observation): string | undefined {
  for (const [key, send] of world.sends) {
    const found = seen.sends.find((one) => one.send_key === key);
    if (!found) return `send ${key} is missing`;
    if (found.counts.intended !== send.members.size || found.members.length !== send.members.size)
      return `send ${key} has ${found.counts.intended} members instead of ${send.members.size}`;
    const expected = [...send.members].map(([member, id]) => {
      const { email, erased } = world.people.get(id)!;
      return erased ? 'erased' : `${member} ${email}`;
    });
    const snapshot = found.members.map((one) =>
      one.email === null ? 'erased' : `${one.key} ${one.email}`,
    );
    const wrong = differs(`snapshot of ${key}`, expected, snapshot, (one) => one);
    if (wrong) return wrong;
    const isRight = send.cancelled
      ? found.state === 'cancelled'
      : send.paused
        ? found.state === 'paused'
        : send.scheduled
          ? found.state === 'scheduled'
          : ['scheduled', 'queued', 'sending', 'completed'].includes(found.state);
    if (!isRight)
      return `send ${key} is ${found.state}: ${JSON.stringify({ ...send, members: 0 })}`;
  }
  return seen.sends.length === world.sends.size ? undefined : 'there is a send too many';
}

/** The members' keys by position: an erased person's is what it was seen as before. */
export function memberKeys(
  worlds: readonly World[],
  send: SeenSend,
  known: (position: number) => string | undefined,
): Map<number, string> {
  const keys = new Map<number, string>();
  for (const { position, key, email } of send.members) {
    const before = known(position);
    if (before !== undefined) keys.set(position, before);
    else if (email !== null && worlds.some((one) => one.sends.get(send.send_key)?.members.has(key)))
      keys.set(position, key);
  }
  return keys;
}
