// A mailing through the API, list and single mails together, and afterwards the account of it: what
// our rows say against what the mail server's journal says.
import type pg from 'pg';
import { formOf } from './emails.ts';
import type { Api } from './harness.ts';
import type { Journal } from './journal.ts';
import { until } from './until.ts';

export interface Postbox {
  api: Api;
  url: string;
  key: string;
}

export interface Mailing {
  sendId: string;
  members: number;
  emailIds: string[];
}

export type Policy = 'retry' | 'hold';

/** Urgent, normal and low ones in turn. */
const PRIORITIES = ['1', '2', '5'];
const AT_ONCE = 8;

/** The templates of either policy that are rendered fastest: 0.9 and 1.4 ms. */
const TRIGGERS = {
  retry: { template_key: 'default_template', shared_context: { name: 'Ada' } },
  hold: { template_key: 'course-newsletter', shared_context: { title: 'News', body: 'News.' } },
};
const EMAIL_DATA = { retry: { name: 'Ada' }, hold: { title: 'News', body: 'News.' } };

/** The list `everybody`, the sender and the email type that `startMailing` uses. */
export async function prepareMailings(api: Api, members: readonly unknown[]): Promise<void> {
  await api('PUT', '/api/senders/courses', { email: 'courses@school.example' });
  await api('PUT', '/api/v1/email-types/note', { from_email: 'courses' });
  for (let at = 0; at < members.length; at += 10_000) {
    await api('POST', '/api/recipient-lists/everybody/members/bulk-upsert', {
      members: members.slice(at, at + 10_000),
    });
  }
}

/** Triggers a send to everybody and queues single mails, each by a key of its own. */
export async function startMailing(
  box: Postbox,
  { name, singles, policy = 'retry' }: { name: string; singles: number; policy?: Policy },
): Promise<Mailing> {
  const send = trigger(box, name, policy);
  const emailIds = await queueSingles(box, name, singles, policy);
  return { ...(await send), emailIds };
}

async function trigger(box: Postbox, name: string, policy: Policy) {
  const send = await untilTaken(() =>
    box.api('POST', '/api/recipient-lists/everybody/send', { send_key: name, ...TRIGGERS[policy] }),
  );
  return { sendId: send.send.id as string, members: send.send.counts.intended as number };
}

async function queueSingles(box: Postbox, name: string, count: number, policy: Policy) {
  const ids = Array.from<string>({ length: count });
  let next = 0;
  const queue = async () => {
    while (next < count) {
      const n = next++;
      const { email_id } = await untilTaken(() => queueOne(box, `${name}:${n}`, n, policy));
      ids[n] = email_id;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, queue));
  return ids;
}

async function queueOne(box: Postbox, idempotencyKey: string, n: number, policy: Policy) {
  const response = await fetch(`${box.url}/api/v1/emails/queue`, {
    method: 'POST',
    headers: { authorization: `Bearer ${box.key}`, 'idempotency-key': idempotencyKey },
    body: formOf({
      email_type: 'note',
      subject: `Note ${n}`,
      email_template: policy === 'hold' ? 'course-newsletter' : 'default_template',
      email_data: JSON.stringify(EMAIL_DATA[policy]),
      priority_level: PRIORITIES[n % PRIORITIES.length]!,
      to_address: [`to${n}@single.example`],
      ...(n % 10 === 0 && {
        cc_addresses: [`cc${n}@single.example`],
        bcc_addresses: [`bcc${n}@single.example`],
      }),
    }),
  });
  return { status: response.status, body: (await response.json()) as { email_id: string } };
}

/** As a client with sense does it: an answer that was lost, or a 503, is asked for again. */
async function untilTaken<Body>(ask: () => Promise<{ status: number; body: Body }>): Promise<Body> {
  return until(
    'the API to accept',
    async () => {
      const answer = await ask().catch(() => undefined);
      if (!answer || answer.status >= 500) return undefined;
      if (answer.status >= 400) throw new Error(JSON.stringify(answer));
      return answer.body;
    },
    60_000,
  );
}

/** Resolves when nothing of the mailing waits any more: what was lost on the way is found after a minute or two. */
export async function untilSettled(
  pool: pg.Pool,
  { sendId, emailIds }: Mailing,
  timeoutMs = 240_000,
): Promise<void> {
  await until(
    `the mailing ${sendId} to be settled`,
    async () => {
      // A database that is being restarted is asked again.
      const { rows } = await pool
        .query(
          `select completed_at is not null and not exists (
             select from single_emails where queue_state <> 'settled' and message_id = any ($2)
           ) as settled from sends where id = $1`,
          [sendId, emailIds],
        )
        .catch(() => ({ rows: [] }));
      return rows[0]?.settled === true;
    },
    timeoutMs,
  );
}

/** What became of a mailing. All numbers are of (message, recipient) pairs. */
export interface Account {
  mails: number;
  sent: number;
  failed: number;
  /** Nobody knows, and nothing more is tried. */
  unknown: number;
  /** Was unknown at some time, whatever it is now. */
  wasUnknown: number;
  /** Neither accepted, nor refused by the server, nor unknown; also: said to be sent but was not. */
  lost: number;
  /** Accepted beyond the first time. */
  duplicates: number;
  /** Of them, those of messages that were never unknown. */
  unexplained: number;
  /** The most a message was accepted for one recipient. */
  mostCopies: number;
}

interface Pair {
  id: string;
  address: string;
  state: string;
  was_unknown: boolean;
}

export async function accountFor(
  pool: pg.Pool,
  mailing: Mailing,
  journal: Journal,
  refused: ReadonlySet<string>,
): Promise<Account> {
  const pairs = await readPairs(pool, mailing);
  const list = pairs.filter(({ kind }) => kind === 'list').length;
  const account: Account = {
    mails: pairs.length,
    sent: 0,
    failed: 0,
    unknown: 0,
    wasUnknown: 0,
    lost: mailing.members - list, // members for whom no message was made
    duplicates: 0,
    unexplained: 0,
    mostCopies: 0,
  };
  for (const pair of pairs) addPair(account, pair, journal, refused);
  return account;
}

function addPair(
  account: Account,
  { id, address, state, was_unknown }: Pair,
  journal: Journal,
  refused: ReadonlySet<string>,
): void {
  const copies = journal.count(id, address);
  if (state === 'sent') account.sent += 1;
  if (state === 'failed') account.failed += 1;
  if (state === 'unknown') account.unknown += 1;
  if (was_unknown) account.wasUnknown += 1;
  const isAccountedFor =
    state === 'unknown' ||
    (state === 'sent' && copies > 0) ||
    (state === 'failed' && copies === 0 && refused.has(address));
  if (!isAccountedFor) account.lost += 1;
  account.mostCopies = Math.max(account.mostCopies, copies);
  if (copies < 2) return;
  account.duplicates += copies - 1;
  if (!was_unknown) account.unexplained += copies - 1;
}

async function readPairs(pool: pg.Pool, { sendId, emailIds }: Mailing) {
  const { rows } = await pool.query<Pair & { kind: 'list' | 'single' }>(
    `select 'list' as kind, m.id, c.email_given as address, m.state, m.was_unknown
     from messages m join contacts c on c.client_id = m.client_id and c.id = m.contact_id
     where m.send_id = $1
     union all
     select 'single', m.id, r.email_given, r.state, m.was_unknown
     from messages m join message_recipients r on r.client_id = m.client_id and r.message_id = m.id
     where m.id = any ($2)`,
    [sendId, emailIds],
  );
  return rows;
}

/** A line for each send whose counts do not add up, or differ from the recount of its messages. */
export async function brokenCounts(pool: pg.Pool): Promise<unknown[]> {
  const { rows } = await pool.query(
    `select to_jsonb(c) as counts, to_jsonb(a) as audit
     from reporting.send_counts c join reporting.send_counts_audit a using (send_id)
     where (c.intended, c.queued, c.sent, c.failed, c.skipped, c.unknown)
         is distinct from (a.intended, a.queued, a.sent, a.failed, a.skipped, a.unknown)
       or c.queued + c.sent + c.failed + c.skipped + c.unknown <> c.intended
       or c.state = 'completed' and c.queued <> 0`,
  );
  return rows;
}
