// The claim: queued → sending, committed before a byte goes to a mail server. One statement asks
// again whether the member may be mailed, so a bounce or an unsubscribe that arrived since the
// message was made wins, and it needs the worker's own row to be running: a worker that was
// declared dead can take nothing any more, however late it wakes.
import { sql, type RawBuilder } from 'kysely';
import { prepared, type Database, type Trx } from '../database/connect.ts';
import type { JsonObject } from '../database/schema.ts';
import type { ChunkRef } from '../queue.ts';
import { notPaused } from './pause.ts';
import { eligibility, type SendRules } from '../recipients/eligibility.ts';
import type { Claimed } from './delivery.ts';
import { tally } from './tally.ts';

/**
 * Messages of one claim at most: more would only wait for the next free connection. It stands in the
 * statement, whose plan is kept: of a parameter the planner knows nothing.
 */
export const MOST_PER_CLAIM = 50;

/** A message in hand, with what it takes to compose it. */
export interface ClaimedMessage {
  id: string;
  contact_id: number;
  email_given: string;
  name: string | null;
  context: JsonObject;
  /** Tries before this one, since it was made or queued again by hand. */
  attempts: number;
  /** As long, in seconds of database time. */
  age_seconds: number;
  /** Until the send expires, in seconds; null where it does not. */
  expires_in_seconds: number | null;
  was_unknown: boolean;
  /** When it was handed over, in database time. */
  claimed_at: Date;
}

/** What a claim needs to know of the send. */
export interface ClaimRules extends SendRules {
  /** Contexts were fetched, and a message whose context is missing waits for it. */
  has_callback: boolean;
}

export interface Chunk extends ChunkRef {
  first_position: number;
  last_position: number;
}

/** A chunk that is being delivered. */
export interface OpenChunk extends Chunk {
  /** Up to this position everything is claimed or done, or was not due when it was looked at. */
  claimed_to: number;
}

/**
 * Part of every claim: the worker is running, and stays so until the claim is committed. A heartbeat
 * does not wait for the lock, declaring the worker dead does.
 */
export function fenceOf(worker: number): RawBuilder<unknown> {
  return sql`
    select from workers where id = ${worker} and stopped_at is null and ${notPaused} for key share`;
}

/** A statement whose answer was lost may still run: what it claims is visible afterwards. */
export async function waitForClaims(trx: Trx, worker: number): Promise<void> {
  await sql`select from workers where id = ${worker} for update`.execute(trx);
}

/**
 * Takes the chunk for this worker. Undefined where it is not to be delivered now: completed, not
 * prepared, held by another delivery, its send not sending, or the worker stopped.
 */
export async function leaseChunk(
  db: Database,
  worker: number,
  ref: ChunkRef,
): Promise<OpenChunk | undefined> {
  const { rows } = await sql<OpenChunk>`
    with fence as materialized (${fenceOf(worker)})
    update send_chunks k set leased_by = ${worker}, next_attempt_at = null
    where k.client_id = ${ref.client_id} and k.send_id = ${ref.send_id} and k.chunk_no = ${ref.chunk_no}
      and k.leased_by is null and k.prepared_at is not null and k.completed_at is null
      and exists (
        select from sends s
        where s.client_id = k.client_id and s.id = k.send_id and s.state = 'sending')
      and exists (select from fence)
    returning client_id, send_id, chunk_no, first_position, last_position,
      first_position - 1 as claimed_to
  `.execute(db);
  return rows[0];
}

/**
 * Claims up to `limit` due messages of a leased chunk: those behind the last claim, which need not look
 * through what is done, then those that have become due before it. Members that may not be mailed any
 * more become skipped in the same statement and are not returned.
 */
export async function claimFromChunk(
  db: Database,
  worker: number,
  chunk: OpenChunk,
  rules: ClaimRules,
  limit: number,
): Promise<Claimed<ClaimedMessage>> {
  const wholeChunk = chunk.claimed_to < chunk.first_position;
  const behind = await claimBehind(db, worker, chunk, rules, limit);
  const left = limit - behind.claimed.length - behind.skipped;
  if (left === 0 || wholeChunk) return behind;
  chunk.claimed_to = chunk.first_position - 1;
  const before = await claimBehind(db, worker, chunk, rules, left);
  return {
    claimed: [...behind.claimed, ...before.claimed],
    skipped: behind.skipped + before.skipped,
  };
}

async function claimBehind(
  db: Database,
  worker: number,
  chunk: OpenChunk,
  rules: ClaimRules,
  limit: number,
): Promise<Claimed<ClaimedMessage>> {
  const { joins, reason } = eligibility(
    chunk.client_id,
    rules,
    sql`due.contact_id`,
    sql`due.source_object_key`,
  );
  const { rows } = await sql<ClaimedMessage & { position: number; state: string }>`${prepared}
    with fence as materialized (${fenceOf(worker)}),
    chunk as materialized (
      select from send_chunks
      where client_id = ${chunk.client_id} and send_id = ${chunk.send_id} and chunk_no = ${chunk.chunk_no}
        and leased_by is not distinct from ${worker} -- by its key, not by the index of leases
        and exists (select from fence)
      for no key update
    ),
    due as materialized (
      select m.*, s.retried_at, s.expires_at
      from (
        select retried_at, expires_at from sends
        where client_id = ${chunk.client_id} and id = ${chunk.send_id} and state = 'sending'
          and (expires_at is null or expires_at > now())
        limit 1
      ) s
      cross join lateral (
        select m.ctid as row, m.position, m.contact_id, m.source_object_key
        from messages m
        where m.client_id = ${chunk.client_id} and m.send_id = ${chunk.send_id}
          and m.position between ${chunk.claimed_to + 1} and ${chunk.last_position}
          and m.state = 'queued' and m.next_attempt_at <= now()
          and exists (select from chunk)
          ${rules.has_callback ? sql`and ${fetchedFor(sql`m`, sql`true`)}` : sql``}
        order by m.position
        limit ${sql.lit(MOST_PER_CLAIM)}
        for update of m skip locked
      ) m
      limit ${limit}
    ),
    judged as (
      select due.row, due.retried_at, due.expires_at, c.email_given, coalesce(r.name, c.name) as name,
        coalesce(${rules.has_callback ? fetchedFor(sql`r`, sql`f.context`) : sql`r.context`}, '{}') as context,
        ${reason} as reason
      from due
      cross join lateral (
        select client_id, send_id, position, name, context from send_recipients
        where client_id = ${chunk.client_id} and send_id = ${chunk.send_id} and position = due.position limit 1
      ) r
      ${joins}
    ),
    claimed as (
      update messages m set
        -- What may have been delivered is not called skipped.
        state = case
          when j.reason is null then 'sending' when m.was_unknown then 'unknown' else 'skipped' end,
        reason = j.reason,
        claimed_by = case when j.reason is null then ${worker}::bigint end,
        claimed_at = case when j.reason is null then now() end,
        settled_at = case when j.reason is not null then now() end
      from judged j
      where m.ctid = j.row -- locked above, so it stays where it is
      returning m.position, m.id, m.contact_id, m.state, m.reason, j.email_given, j.name, j.context,
        m.attempts - m.attempts_at_retry as attempts, m.claimed_at, m.was_unknown,
        extract(epoch from now() - greatest(m.created_at, j.retried_at))::float8 as age_seconds,
        extract(epoch from j.expires_at - now())::float8 as expires_in_seconds
    ),
    tallied as (
      ${tally(chunk, sql`claimed`)}
    )
    select id, position, contact_id, state, email_given, name, context, attempts, claimed_at, was_unknown,
      age_seconds, expires_in_seconds
    from claimed order by position
  `.execute(db);
  chunk.claimed_to = rows.at(-1)?.position ?? chunk.claimed_to;
  const claimed = rows.filter((row) => row.state === 'sending');
  return { claimed, skipped: rows.length - claimed.length };
}

/** A look-up with a limit is one index probe a message, whatever the planner knows of the table. */
function fetchedFor(message: RawBuilder<unknown>, what: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(
    select ${what} from fetched_contexts f
    where f.client_id = ${message}.client_id and f.send_id = ${message}.send_id
      and f.position = ${message}.position limit 1)`;
}
