// Records outcomes of list mail: sending → sent, failed, unknown, or back to queued for a later try,
// together with the chunks' tallies, in one statement. Nothing is recorded over what somebody else
// settled: the message must still be in this worker's hands.
import { sql, type RawBuilder } from 'kysely';
import { prepared, type Database } from '../database/connect.ts';
import type { ChunkRef } from '../queue.ts';
import type { Outcome } from '../smtp/signal.ts';

export interface MessageOutcome {
  chunk: ChunkRef;
  message_id: string;
  outcome: Outcome;
  /** Seconds until the next try, where there is one. */
  retryIn?: number;
}

/**
 * One statement for any number of outcomes of any number of chunks. Locks the chunks in ascending
 * order, then the messages. An address that bounced for good is suppressed along.
 */
export async function recordOutcomes(
  db: Database,
  worker: number,
  outcomes: readonly MessageOutcome[],
): Promise<void> {
  const rows = outcomes.map(({ chunk, message_id, outcome, retryIn }) => ({
    ...chunk,
    id: message_id,
    state: retryIn === undefined ? outcome.kind : 'queued',
    unknown: outcome.kind === 'unknown',
    tries: outcome.kind === 'held' ? 0 : 1,
    reason: outcome.kind === 'sent' ? null : outcome.reason,
    reply: outcome.reply,
    suppress: outcome.kind === 'failed' && outcome.suppress,
    retry_in: retryIn ?? null,
  }));
  await sql`${prepared}
    with outcome as materialized (
      select * from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as o(
        client_id integer, send_id uuid, chunk_no integer, id uuid, state text, unknown boolean,
        tries integer, reason text, reply text, suppress boolean, retry_in float8)
    ),
    chunk as materialized (
      select k.client_id, k.send_id, k.chunk_no
      from send_chunks k
      where (k.client_id, k.send_id, k.chunk_no) in (select client_id, send_id, chunk_no from outcome)
        and ${amongOutcomes('k', 'client_id', 'send_id', 'chunk_no')}
      order by k.client_id, k.send_id, k.chunk_no
      for no key update
    ),
    settled as (
      update messages m set
        state = o.state,
        reason = o.reason,
        last_reply = o.reply,
        attempts = m.attempts + o.tries,
        was_unknown = m.was_unknown or o.unknown,
        next_attempt_at = ${roundedDueTime(sql`o.retry_in`)},
        claimed_by = null,
        claimed_at = null,
        settled_at = case when o.state <> 'queued' then now() end
      from outcome o join chunk using (client_id, send_id, chunk_no)
      where m.client_id = o.client_id and m.id = o.id
        and ${amongOutcomes('m', 'client_id', 'id')}
        and m.state = 'sending' and m.claimed_by = ${worker}
      returning m.client_id, m.contact_id, o.send_id, o.chunk_no, o.state, o.suppress
    ),
    suppressed as (
      insert into suppressions (client_id, address_hash, email, reason, note)
      select distinct c.client_id, address_hash(c.client_id, c.email), c.email, 'hard_bounce', 'refused at RCPT'
      from settled s join contacts c on c.client_id = s.client_id and c.id = s.contact_id
      where s.suppress and c.email is not null
      on conflict (client_id, address_hash) do update set
        reason = excluded.reason, note = excluded.note, email = excluded.email, updated_at = now()
      where suppressions.reason is null
    )
    update send_chunks k set
      sent = k.sent + t.sent, failed = k.failed + t.failed, unknown = k.unknown + t.unknown
    from (
      select client_id, send_id, chunk_no,
        count(*) filter (where state = 'sent') as sent,
        count(*) filter (where state = 'failed') as failed,
        count(*) filter (where state = 'unknown') as unknown
      from settled group by client_id, send_id, chunk_no
    ) t
    where k.client_id = t.client_id and k.send_id = t.send_id and k.chunk_no = t.chunk_no
      and ${amongOutcomes('k', 'client_id', 'send_id', 'chunk_no')}
  `.execute(db);
}

/** What the joins say already: with it only these rows are read, whichever side the planner begins with. */
function amongOutcomes(table: string, ...columns: string[]): RawBuilder<unknown> {
  return sql.join(
    columns.map(
      (column) =>
        sql`${sql.ref(`${table}.${column}`)} = any (array(select ${sql.ref(column)} from outcome))`,
    ),
    sql` and `,
  );
}

/**
 * now() + seconds, rounded up to a tenth of them: the members of a chunk that are put off within a
 * short time become due together and make one wake-up.
 */
export function roundedDueTime(seconds: ReturnType<typeof sql>) {
  return sql`case
    when ${seconds} is null then next_attempt_at
    else to_timestamp(
      ceil((extract(epoch from now()) + ${seconds}) / greatest(${seconds} / 10, 0.001)::numeric)
      * greatest(${seconds} / 10, 0.001)::numeric)
  end`;
}
