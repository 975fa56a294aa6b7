// What a recipient list is, in memory. The latest key given for a contact wins; what is not given stays; a
// contact that moves or comes back has the strictest consent that is known of them.

export type Consent = 'subscribed' | 'pending' | 'unsubscribed';

export interface Given {
  source_object_key: string;
  email: string;
  name?: string | null;
  consent?: Consent;
  metadata?: Record<string, unknown>;
}

export interface Row {
  email: string;
  name: string | null;
  consent: Consent;
  metadata: Record<string, unknown>;
  removed: boolean;
}

export const STRICTNESS: Record<Consent, number> = { subscribed: 0, pending: 1, unsubscribed: 2 };

export const strictest = (...consents: (Consent | undefined)[]): Consent =>
  consents.reduce<Consent>(
    (most, one) => (one && STRICTNESS[one] > STRICTNESS[most] ? one : most),
    'subscribed',
  );

export class ListModel {
  readonly rows: Map<string, Row>;
  /** Keys, in the order of their removals. */
  readonly #removals: string[];

  constructor(rows: Iterable<[string, Row]> = [], removals: Iterable<string> = []) {
    this.rows = new Map(rows);
    this.#removals = [...removals];
  }

  clone(): ListModel {
    return new ListModel(
      [...this.rows].map(([key, row]) => [key, { ...row }]),
      this.#removals,
    );
  }

  /**
   * All members of one call; a key or address that stands twice is rejected the second time. What a
   * recipient who `hasLeft` has said already is nothing new.
   */
  upsert(members: readonly Given[], hasLeft: (email: string) => boolean = () => false) {
    const taken = withoutTwins(members);
    const left = taken.map((member) => this.#leaveOtherKeys(member));
    const consents = taken.map((member, index) => this.#consentOf(member, left[index], hasLeft));
    const counts = { created: 0, updated: 0, unchanged: 0 };
    taken.forEach((member, index) => {
      counts[this.#write(member, consents[index]!)] += 1;
    });
    return { ...counts, rejected: members.length - taken.length };
  }

  /** Takes out who is not named, not even by a row that was rejected. @returns how many */
  removeAbsent(members: readonly Given[]): number {
    const rejected = members.filter((one) => !withoutTwins(members).includes(one));
    const keys = new Set(members.map((one) => one.source_object_key));
    const emails = new Set(rejected.map((one) => one.email.toLowerCase()));
    const absent = [...this.rows].filter(
      ([key, row]) => !row.removed && !keys.has(key) && !emails.has(row.email),
    );
    for (const [key] of absent) this.remove(key);
    return absent.length;
  }

  #leaveOtherKeys({ source_object_key, email }: Given): Consent | undefined {
    let consent: Consent | undefined;
    for (const [key, row] of this.rows) {
      if (row.removed || row.email !== email.toLowerCase() || key === source_object_key) continue;
      this.remove(key);
      consent = row.consent;
    }
    return consent;
  }

  #consentOf(
    given: Given,
    left: Consent | undefined,
    hasLeft: (email: string) => boolean,
  ): Consent {
    const email = given.email.toLowerCase();
    const before = this.rows.get(given.source_object_key);
    const isHis = before?.email === email;
    const removed = this.#removals.findLast(
      (key) => this.rows.get(key)?.removed && this.rows.get(key)!.email === email,
    );
    const removedConsent = removed === undefined ? undefined : this.rows.get(removed)!.consent;
    if (given.consent === 'unsubscribed' && isHis && hasLeft(email)) return before.consent;
    if (given.consent) return given.consent;
    if (!isHis) return strictest(left ?? removedConsent ?? before?.consent, removedConsent);
    return before.removed ? strictest(before.consent, left, removedConsent) : before.consent;
  }

  #write(given: Given, consent: Consent): 'created' | 'updated' | 'unchanged' {
    const before = this.rows.get(given.source_object_key);
    const after: Row = {
      email: given.email.toLowerCase(),
      name: given.name !== undefined ? given.name : (before?.name ?? null),
      consent,
      metadata: given.metadata ?? before?.metadata ?? {},
      removed: false,
    };
    this.rows.set(given.source_object_key, after);
    if (!before) return 'created';
    return JSON.stringify(before) === JSON.stringify(after) ? 'unchanged' : 'updated';
  }

  remove(key: string): void {
    const row = this.rows.get(key);
    if (!row || row.removed) return;
    row.removed = true;
    this.#removals.push(key);
  }

  /** Removed rows go, too. */
  erase(email: string): void {
    for (const [key, row] of this.rows) if (row.email === email) this.rows.delete(key);
  }

  shown(removed: boolean) {
    return [...this.rows]
      .filter(([, row]) => row.removed === removed)
      .map(([key, { email, name, consent, metadata }]) => ({ key, email, name, consent, metadata }))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Two lists with the same state answer the same from here on. */
  state(): string {
    const removals = [...new Set(this.#removals.toReversed())].filter(
      (key) => this.rows.get(key)?.removed,
    );
    return JSON.stringify([this.shown(false), this.shown(true), removals]);
  }
}

function withoutTwins(members: readonly Given[]): Given[] {
  const taken: Given[] = [];
  for (const member of members) {
    const twin = taken.some(
      (one) =>
        one.source_object_key === member.source_object_key ||
        one.email.toLowerCase() === member.email.toLowerCase(),
    );
    if (!twin) taken.push(member);
  }
  return taken;
}
