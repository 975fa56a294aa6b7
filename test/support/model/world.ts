// What the product holds, in memory: people, suppressions, lists, sends and their snapshots. `apply` does one
// call to it and holds the answer against what the call must answer there. Nothing here is delivered:
// what may become of a message is said in outcomes.ts, from the same world.
import { ListModel } from './list.ts';
import type { Call } from './calls.ts';

/** A contact's row. Who comes back after an erasure is another one. */
export interface Person {
  email: string;
  leftAll: boolean;
  leftLists: Set<string>;
  erased: boolean;
}

export interface Suppression {
  reason: 'hard_bounce' | 'complaint' | 'manual' | null;
  /** An unsubscribe that is remembered of an erased person. */
  left: boolean;
  hasAddress: boolean;
}

export type Template = 'score' | 'score with consent' | 'newsletter';

export interface SendModel {
  /** List and body: what a replay must repeat. */
  request: string;
  list: string;
  template: Template;
  byCallback: boolean;
  /** source_object_key to the id of its person. */
  members: Map<string, string>;
  scheduled: boolean;
  paused: boolean;
  cancelled: boolean;
}

/** What a call's answer depends on beside the world. */
export interface Seen {
  /** Whether the send is completed when the call comes to it. */
  completed(send: string): 'yes' | 'no' | 'maybe';
  /** A worker may suppress addresses that bounce at any moment. */
  bounces(email: string): boolean;
}

export class World {
  people = new Map<string, Person>();
  suppressions = new Map<string, Suppression>();
  lists = new Map<string, ListModel>();
  sends = new Map<string, SendModel>();
  /** The callback leaves out the contexts of some members. */
  omits = false;
  #erasures = new Map<string, number>();

  clone(): World {
    const copy = new World();
    for (const [id, person] of this.people)
      copy.people.set(id, { ...person, leftLists: new Set(person.leftLists) });
    for (const [email, one] of this.suppressions) copy.suppressions.set(email, { ...one });
    for (const [key, list] of this.lists) copy.lists.set(key, list.clone());
    for (const [key, send] of this.sends) copy.sends.set(key, { ...send }); // members are frozen
    copy.omits = this.omits;
    copy.#erasures = new Map(this.#erasures);
    return copy;
  }

  /** Worlds with the same state answer the same from here on. */
  state(): string {
    const sorted = <Value>(map: Map<string, Value>, show: (value: Value) => unknown) =>
      [...map]
        .sort(([one], [other]) => (one < other ? -1 : 1))
        .map(([key, value]) => [key, show(value)]);
    return JSON.stringify([
      sorted(this.people, (one) => ({ ...one, leftLists: [...one.leftLists].sort() })),
      sorted(this.suppressions, (one) => one),
      sorted(this.lists, (one) => one.state()),
      sorted(this.sends, (one) => ({ ...one, members: [...one.members] })),
    ]);
  }

  idOf(email: string): string {
    return `${email}#${this.#erasures.get(email) ?? 0}`;
  }

  personOf(email: string): Person | undefined {
    return this.people.get(this.idOf(email));
  }

  /** Does the call; the worlds it may lead to with this answer: none where the answer is wrong. */
  apply(call: Call, said: string, seen: Seen): World[] {
    const after = this.clone();
    switch (call.do) {
      case 'put':
      case 'bulk':
      case 'import':
      case 'reconcile':
        return after.#write(call) === said ? [after] : [];
      case 'remove':
        after.list(call.list).remove(call.key);
        return said === '204' ? [after] : [];
      case 'trigger':
        return after.#trigger(call) === said ? [after] : [];
      case 'unsubscribe':
        after.#unsubscribe(call);
        return said === '200' ? [after] : [];
      case 'suppress':
      case 'unsuppress':
        return after.#suppress(call).includes(said) || after.#mayBounce(call, said, seen)
          ? [after]
          : [];
      case 'erase':
        return after.#erase(call.email) === said ? [after] : [];
      default:
        return after.#control(call, said, seen.completed(call.send ?? ''));
    }
  }

  list(key: string): ListModel {
    const list = this.lists.get(key) ?? new ListModel();
    this.lists.set(key, list);
    return list;
  }

  #write(call: Extract<Call, { do: 'put' | 'bulk' | 'import' | 'reconcile' }>): string {
    const list = this.list(call.list);
    const members = call.do === 'put' ? [call.member] : call.members;
    const isDry = call.do === 'reconcile' && call.dry_run === true;
    const written = isDry ? list.clone() : list;
    const { rejected, ...counts } = written.upsert(
      members,
      (email) => this.personOf(email)?.leftLists.has(call.list) ?? false,
    );
    if (!isDry) for (const { email } of list.rows.values()) this.#meet(email);
    if (call.do === 'put') return counts.created === 1 ? '201' : '200';
    const removed =
      call.do === 'reconcile'
        ? { removed: call.remove_absent === false ? 0 : written.removeAbsent(members) }
        : {};
    return `200 ${JSON.stringify({ ...counts, ...removed, rejected })}`;
  }

  #meet(email: string): void {
    if (this.personOf(email)) return;
    const person = { email, leftAll: false, leftLists: new Set<string>(), erased: false };
    this.people.set(this.idOf(email), person);
  }

  #trigger({ send, list, template, body }: Extract<Call, { do: 'trigger' }>): string {
    const request = JSON.stringify([list, body]);
    const earlier = this.sends.get(send);
    if (earlier) return earlier.request === request ? '200' : '409';
    const active = this.list(list).shown(false);
    const keys = new Set(active.map(({ key }) => key));
    if (Object.keys(body.recipient_context ?? {}).some((key) => !keys.has(key))) return '400';
    this.sends.set(send, {
      request,
      list,
      template,
      byCallback: body.context_callback !== undefined,
      members: new Map(active.map(({ key, email }) => [key, this.idOf(email)])),
      scheduled: body.scheduled_at !== undefined && Date.parse(body.scheduled_at) > Date.now(),
      paused: false,
      cancelled: false,
    });
    return `202 intended ${active.length}`;
  }

  #unsubscribe({ person: id, list, scope }: Extract<Call, { do: 'unsubscribe' }>): void {
    const person = this.people.get(id);
    if (!person || person.erased) return;
    if (scope === 'all') person.leftAll = true;
    else person.leftLists.add(list);
  }

  #suppress(call: Extract<Call, { do: 'suppress' | 'unsuppress' }>): string[] {
    const known = this.suppressions.get(call.email);
    const left = known?.left ?? false;
    if (call.do === 'suppress') {
      this.suppressions.set(call.email, { reason: call.reason, left, hasAddress: true });
      return [known?.reason ? '200' : '201'];
    }
    if (left) this.suppressions.set(call.email, { ...known!, reason: null });
    else this.suppressions.delete(call.email);
    return [known?.reason ? '204' : '404'];
  }

  #mayBounce(
    { email }: Extract<Call, { do: 'suppress' | 'unsuppress' }>,
    said: string,
    seen: Seen,
  ): boolean {
    return seen.bounces(email) && ['200', '201', '204', '404'].includes(said);
  }

  #erase(email: string): string {
    const person = this.personOf(email);
    const known = this.suppressions.get(email);
    if (!person && !known?.hasAddress) return '404';
    const hasLeft = person !== undefined && (person.leftAll || person.leftLists.size > 0);
    if (known || hasLeft) {
      const left = (known?.left ?? false) || hasLeft;
      this.suppressions.set(email, { reason: known?.reason ?? null, left, hasAddress: false });
    }
    if (person) {
      person.erased = true;
      for (const list of this.lists.values()) list.erase(email);
      this.#erasures.set(email, (this.#erasures.get(email) ?? 0) + 1);
    }
    return '204';
  }

  /** `this` is a copy already. */
  #control(
    {
      do: action,
      send: key,
    }: Extract<Call, { do: 'pause' | 'resume' | 'cancel' | 'retry-failed' }>,
    said: string,
    completed: 'yes' | 'no' | 'maybe',
  ): World[] {
    const send = this.sends.get(key ?? '');
    if (!send) return said === 'no send' ? [this] : [];
    if (send.cancelled) return said === (action === 'cancel' ? '200' : '409') ? [this] : [];
    if (action === 'retry-failed') {
      if (said !== '200') return [];
      // A send that is completed goes on, whatever was said to it before.
      if (completed === 'no' || !send.paused) return [this];
      const reopened = this.clone();
      reopened.sends.get(key!)!.paused = false;
      return completed === 'yes' ? [reopened] : [this, reopened];
    }
    if (said === '409') return completed === 'no' ? [] : [this];
    if (said !== '200' || completed === 'yes') return [];
    if (action === 'cancel') send.cancelled = true;
    send.paused = action === 'pause';
    return [this];
  }
}
