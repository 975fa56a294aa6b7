// Breakers of mail servers, shared by all workers in PostgreSQL: what is stopped (a mail server, a
// sender at it, a recipients' domain at it), until when, and who may try whether it works again. A
// worker looks at a copy at most a second old, so that mail costs no question of its own; that one
// probe only is under way is decided in the database, in database time.
import { sql, type Selectable } from 'kysely';
import type { Database } from '../database/connect.ts';
import type { BreakerReason, DB } from '../database/schema.ts';
import type { Logger } from '../log.ts';

/** What is stopped: with neither sender nor domain, the whole mail server. */
export interface BreakerKey {
  transport: string;
  /** Lower case, or empty. */
  sender: string;
  domain: string;
}

export interface Breaker {
  transport: string;
  sender?: string;
  domain?: string;
  state: 'open' | 'half_open';
  reason: BreakerReason;
  last_reply: string;
  since: Date;
  retry_at: Date;
}

/** All that are not closed. */
export async function listBreakers(db: Database): Promise<Breaker[]> {
  const rows = await db
    .selectFrom('transport_states')
    .selectAll()
    .orderBy('transport')
    .orderBy('sender_email')
    .orderBy('recipient_domain')
    .execute();
  return rows.map(breakerOf);
}

function breakerOf(row: Selectable<DB['transport_states']>): Breaker {
  const { transport, state, reason, last_reply, opened_at: since, retry_at } = row;
  const { sender_email: sender, recipient_domain: domain } = row;
  return {
    transport,
    ...(sender && { sender }),
    ...(domain && { domain }),
    state,
    reason,
    last_reply,
    since,
    retry_at,
  };
}

/** `waitSeconds` until it is worth asking again; `probe`: one message may try. */
export type BreakerState =
  | { kind: 'closed' }
  | { kind: 'probe' }
  | { kind: 'stopped'; waitSeconds: number; reason: BreakerReason };

const CLOSED: BreakerState = { kind: 'closed' };
const COPY_MS = 1000;
/** Times the first pause: the longest one, and how long a probe may take. */
const LONGEST_PAUSE = 30;
const PROBE_TIME = 4;
/** Of the first pause: how soon to look again while somebody's probe is under way. */
const LOOK_AGAIN = 1 / 30;

interface Known extends BreakerKey {
  state: 'open' | 'half_open';
  reason: BreakerReason;
  /** In this process's monotonic time, made of what the database said is left. */
  retryAt: number;
}

const ROW = sql`transport, sender_email as sender, recipient_domain as domain, state, reason,
  extract(epoch from retry_at - clock_timestamp())::float8 as seconds`;
type Row = Omit<Known, 'retryAt'> & { seconds: number };

export class Breakers {
  readonly #db: Database;
  readonly #log: Logger;
  readonly #pause: number;
  #known = new Map<string, Known>();
  #readAt = -Infinity;
  #reading: Promise<void> | undefined;

  /** `pauseSeconds`: the first one. */
  constructor(db: Database, log: Logger, pauseSeconds: number) {
    this.#db = db;
    this.#log = log;
    this.#pause = pauseSeconds;
  }

  /** Reads the copy anew where it is older than a second. */
  async refresh(): Promise<void> {
    if (performance.now() - this.#readAt < Math.min(COPY_MS, this.#pause * 1000 * LOOK_AGAIN))
      return;
    await (this.#reading ??= this.#read().finally(() => (this.#reading = undefined)));
  }

  async #read(): Promise<void> {
    const { rows } = await sql<Row>`select ${ROW} from transport_states`.execute(this.#db);
    this.#known = new Map(rows.map((row) => [nameOf(row), knownOf(row)]));
    this.#readAt = performance.now();
  }

  stateOf(key: BreakerKey): BreakerState {
    const known = this.#known.size > 0 ? this.#known.get(nameOf(key)) : undefined;
    if (!known) return CLOSED;
    const left = (known.retryAt - performance.now()) / 1000;
    if (left <= 0) return { kind: 'probe' };
    const waitSeconds = known.state === 'open' ? left : Math.min(left, this.#pause * LOOK_AGAIN);
    return { kind: 'stopped', waitSeconds, reason: known.reason };
  }

  /** Senders of whom a mail server takes nothing for now. */
  sendersStoppedAt(transport: string): string[] {
    return [...this.#known.values()]
      .filter((known) => known.transport === transport && known.sender !== '')
      .map((known) => known.sender);
  }

  /**
   * Opens a breaker, or opens it again with twice the pause after a probe. Says nothing new while it
   * is open: mail that was under way then meets the same trouble.
   */
  async open(key: BreakerKey, reason: BreakerReason, reply: string): Promise<void> {
    const { transport, sender, domain } = key;
    const { rows } = await sql<Row & { failures: number }>`
      insert into transport_states as s
        (transport, sender_email, recipient_domain, reason, last_reply, retry_at)
      values (${transport}, ${sender}, ${domain}, ${reason}, ${withoutAddresses(reply)},
        clock_timestamp() + make_interval(secs => ${this.#pause}::float8 * (0.9 + 0.2 * random())))
      on conflict (transport, sender_email, recipient_domain) do update set
        state = 'open', reason = excluded.reason, last_reply = excluded.last_reply,
        failures = s.failures + 1,
        retry_at = clock_timestamp() + make_interval(secs =>
          ${this.#pause}::float8 * least(2 ^ least(s.failures, 10), ${LONGEST_PAUSE}) * (0.9 + 0.2 * random()))
      where s.state = 'half_open'
      returning ${ROW}, failures
    `.execute(this.#db);
    const row = rows[0];
    if (!row) {
      this.#readAt = -Infinity;
      return;
    }
    this.#known.set(nameOf(row), knownOf(row));
    this.#log.error(
      { ...named(key), reason, reply: withoutAddresses(reply), failures: row.failures },
      'stopped for now; its mail stays queued',
    );
  }

  /** After a probe that showed nothing: for the reason it was stopped before. */
  openAgain(key: BreakerKey, reply: string): Promise<void> {
    return this.open(key, this.#known.get(nameOf(key))?.reason ?? 'slowed', reply);
  }

  /** Takes the right to try: false where somebody else has it, or one of them is not due. */
  async takeProbe(keys: readonly BreakerKey[]): Promise<boolean> {
    const wanted = JSON.stringify(keys);
    const { rows } = await sql<Row>`
      with wanted as materialized (
        select s.transport, s.sender_email, s.recipient_domain, s.retry_at
        from transport_states s
        join jsonb_to_recordset(${wanted}::jsonb) as k(transport text, sender text, domain text)
          on k.transport = s.transport and k.sender = s.sender_email and k.domain = s.recipient_domain
        order by 1, 2, 3
        for update of s
      )
      update transport_states s set state = 'half_open',
        retry_at = clock_timestamp() + make_interval(secs => ${this.#pause * PROBE_TIME})
      from wanted w
      where s.transport = w.transport and s.sender_email = w.sender_email
        and s.recipient_domain = w.recipient_domain
        and not exists (select from wanted where retry_at > clock_timestamp())
      returning s.transport, s.sender_email as sender, s.recipient_domain as domain, s.state, s.reason,
        extract(epoch from s.retry_at - clock_timestamp())::float8 as seconds
    `.execute(this.#db);
    for (const row of rows) this.#known.set(nameOf(row), knownOf(row));
    if (rows.length === 0) this.#readAt = -Infinity;
    return rows.length > 0;
  }

  /** The right to try was not made use of. */
  async returnProbe(keys: readonly BreakerKey[]): Promise<void> {
    for (const { transport, sender, domain } of keys) {
      await this.#db
        .updateTable('transport_states')
        .set({ state: 'open', retry_at: sql`clock_timestamp()` })
        .where('transport', '=', transport)
        .where('sender_email', '=', sender)
        .where('recipient_domain', '=', domain)
        .where('state', '=', 'half_open')
        .execute();
    }
    this.#readAt = -Infinity;
  }

  async close(key: BreakerKey): Promise<void> {
    const { numDeletedRows } = await this.#db
      .deleteFrom('transport_states')
      .where('transport', '=', key.transport)
      .where('sender_email', '=', key.sender)
      .where('recipient_domain', '=', key.domain)
      .executeTakeFirstOrThrow();
    this.#known.delete(nameOf(key));
    if (numDeletedRows > 0n) this.#log.info(named(key), 'works again');
  }
}

function named({ transport, sender, domain }: BreakerKey) {
  return { transport, ...(sender && { sender }), ...(domain && { domain }) };
}

function nameOf({ transport, sender, domain }: BreakerKey): string {
  return `${transport}\n${sender}\n${domain}`;
}

function knownOf({ seconds, ...row }: Row): Known {
  return { ...row, retryAt: performance.now() + seconds * 1000 };
}

/** Recipients' addresses stand in replies; the log and /readyz must not show them. */
function withoutAddresses(reply: string): string {
  return reply.replace(/[^\s<>"'(),;:]+@[^\s<>"'(),;:]+/gu, '…');
}
