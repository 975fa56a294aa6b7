// What dead workers leave behind. Whoever finds one declares it dead, which fences it, ends its sessions
// and settles what it had in hand: nobody knows whether those messages reached the mail server, so they
// are `unknown`, and by the policy of their template sent once more (flagged) or left to a person.
import { sql, type RawBuilder } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import { waitForClaims } from './claim.ts';

/** First key of the workers' advisory locks; the second is the worker's id. */
export const WORKER_LOCK = 0x5250;

/** Heartbeats missed by a worker whose lock is free, after which it is dead. */
const MISSED = 1.5;

/** Declares dead what gives no sign of life. */
export async function declareDeadWorkers(db: Database, self: number, log: Logger): Promise<void> {
  for (const dead of await findDead(db, self)) {
    if (!(await declareDead(db, dead))) continue;
    log.error({ ...dead }, 'a worker is dead');
    await endSessions(db, dead.application_name);
  }
}

/** Settles what dead and stopped workers left in hand. */
export async function recoverStopped(db: Database, log: Logger): Promise<void> {
  while (await recoverNext(db, log));
}

interface DeadWorker {
  id: number;
  hostname: string;
  pid: number;
  application_name: string;
}

/**
 * A heartbeat that is too old; sooner where the lock is free, too: the process is gone, or has just
 * lost its session and takes the lock again within a beat.
 */
const isDead = sql<boolean>`
  w.stopped_at is null and (
    w.heartbeat_at < now() - make_interval(secs => w.dead_after_seconds)
    or w.heartbeat_at < now() - make_interval(secs => ${MISSED} * w.heartbeat_seconds)
      and not exists (
        select from pg_locks l
        where l.locktype = 'advisory' and l.granted and l.objsubid = 2
          and l.classid = ${WORKER_LOCK}::oid and l.objid = w.id::oid
          and l.database = (select oid from pg_database where datname = current_database())))`;

async function findDead(db: Database, self: number): Promise<DeadWorker[]> {
  const { rows } = await sql<DeadWorker>`
    select id, hostname, pid, application_name from workers w
    where w.id <> ${self} and ${isDead}
  `.execute(db);
  return rows;
}

/** A suspended process may hold locks that everybody else waits for. */
async function endSessions(db: Database, applicationName: string): Promise<void> {
  await sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
      and application_name in (${applicationName}, ${`${applicationName} liveness`})
  `.execute(db);
}

/**
 * Waits for claims that are being committed: they are then settled like the others. Those of a process
 * that was suspended within one are never committed: its sessions are ended first.
 */
async function declareDead(db: Database, { id, application_name }: DeadWorker): Promise<boolean> {
  const mark = () =>
    db.transaction().execute(async (trx) => {
      await sql`set local lock_timeout = '500ms'`.execute(trx);
      await waitForClaims(trx, id);
      const { numAffectedRows } = await sql`
        update workers w set stopped_at = now() where w.id = ${id} and ${isDead}
      `.execute(trx);
      return numAffectedRows === 1n;
    });
  try {
    return await mark();
  } catch {
    await endSessions(db, application_name);
    return mark();
  }
}

function recoverNext(db: Database, log: Logger): Promise<boolean> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ id: number; pool_ids: string[] }>`
      select id, pool_ids from workers
      where stopped_at is not null and recovered_at is null
      order by id limit 1 for update skip locked
    `.execute(trx);
    if (!rows[0]) return false;
    const { id, pool_ids } = rows[0];
    const unsettled = (await settleChunks(trx, id)) + (await settleSingles(trx, id));
    await sql`select graphile_worker.force_unlock_workers(${pool_ids}::text[])`.execute(trx);
    await sql`update workers set recovered_at = now() where id = ${id}`.execute(trx);
    if (unsettled > 0)
      log.error({ worker: id, unknown: unsettled }, 'left in hand by a dead worker');
    return true;
  });
}

/** @returns how many messages were in hand */
async function settleChunks(trx: Trx, worker: number): Promise<number> {
  const inHand = await settleStrays(trx, sql`k.leased_by = ${worker}`, undefined);
  await sql`
    update send_chunks set leased_by = null, next_attempt_at = now() where leased_by = ${worker}
  `.execute(trx);
  return inHand;
}

/**
 * Settles what is `sending` in chunks (`k`) of which nothing is in anybody's hands. What `self` claimed
 * was claimed by a statement whose answer was lost, and has met no mail server: it is queued as it was.
 * Of what others claimed nobody knows. Locks the chunks in ascending order, then the messages.
 * @returns how many there were
 */
export async function settleStrays(
  trx: Trx,
  which: RawBuilder<unknown>,
  self: number | undefined,
): Promise<number> {
  const { rows } = await sql<{ strays: number }>`
    with chunk as materialized (
      select k.client_id, k.send_id, k.chunk_no, k.first_position, k.last_position, s.on_unknown
      from send_chunks k join sends s on s.client_id = k.client_id and s.id = k.send_id
      where ${which}
        and k.last_position - k.first_position + 1 > k.sent + k.failed + k.skipped + k.unknown
      order by k.client_id, k.send_id, k.chunk_no
      for no key update of k
    ),
    verdict as materialized (
      select m.row, chunk.chunk_no, own.is,
        own.is or chunk.on_unknown = 'retry' and not m.was_unknown as again
      from chunk
      cross join lateral (
        select m.ctid as row, m.claimed_by, m.was_unknown
        from messages m
        where m.client_id = chunk.client_id and m.send_id = chunk.send_id
          and m.position between chunk.first_position and chunk.last_position and m.state = 'sending'
        offset 0 -- chunk after chunk, whatever the planner knows
        for no key update of m
      ) m
      cross join lateral (select m.claimed_by is not distinct from ${self ?? null}::bigint as is) own
    ),
    settled as (
      update messages m set
        state = case when v.again then 'queued' else 'unknown' end,
        settled_at = case when not v.again then now() end,
        reason = case when v.is then m.reason else 'worker_died' end,
        was_unknown = m.was_unknown or not v.is,
        attempts = m.attempts + case when v.is then 0 else 1 end,
        claimed_by = null, claimed_at = null, next_attempt_at = now()
      from verdict v where m.ctid = v.row -- locked above, so it stays where it is
      returning m.client_id, m.send_id, v.chunk_no, m.state
    ),
    tallied as (
      update send_chunks k set unknown = k.unknown + t.unknown
      from (
        select client_id, send_id, chunk_no, count(*) as unknown from settled
        where state = 'unknown' group by client_id, send_id, chunk_no
      ) t
      where (k.client_id, k.send_id, k.chunk_no) = (t.client_id, t.send_id, t.chunk_no)
    )
    select count(*)::integer as strays from settled
  `.execute(trx);
  return rows[0]!.strays;
}

/** Recipients that had their answer keep it; the others share what becomes of the message. */
async function settleSingles(trx: Trx, worker: number): Promise<number> {
  const { rows } = await sql<{ in_hand: number }>`
    with held as materialized (
      select e.client_id, e.message_id, e.on_unknown = 'retry' and not m.was_unknown as again
      from single_emails e
      join messages m on m.client_id = e.client_id and m.id = e.message_id
      where e.queue_state = 'claimed' and e.claimed_by = ${worker}
      order by e.client_id, e.message_id
      for no key update of e, m
    ),
    recipients as (
      update message_recipients r set state = 'unknown', reason = 'worker_died'
      from held h
      where r.client_id = h.client_id and r.message_id = h.message_id and r.state = 'queued'
        and not h.again
    ),
    settled as (
      update messages m set
        state = case
          when h.again then 'queued'
          when exists (
            select from message_recipients r
            where r.client_id = h.client_id and r.message_id = h.message_id and r.state = 'sent') then 'sent'
          else 'unknown' end,
        settled_at = case when not h.again then now() end,
        reason = 'worker_died', was_unknown = true, attempts = m.attempts + 1,
        claimed_by = null, claimed_at = null, next_attempt_at = now()
      from held h where m.client_id = h.client_id and m.id = h.message_id
    ),
    freed as (
      update single_emails e set
        queue_state = case when h.again then 'deferred' else 'settled' end,
        next_attempt_at = case when h.again then now() end,
        claimed_by = null, claim_id = null
      from held h where e.client_id = h.client_id and e.message_id = h.message_id
    )
    select count(*)::integer as in_hand from held
  `.execute(trx);
  return rows[0]!.in_hand;
}
