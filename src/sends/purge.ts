// Retention: what is older goes, in small batches, each a transaction of its own. Of a send the members'
// names, contexts and messages go; its row and its chunks' tallies stay, so its counts outlive them and
// its send_key stays used. Of single emails everything goes, attachments with the last email that has them.
import { sql } from 'kysely';
import type { Database } from '../database/connect.ts';

/** Of one transaction. */
const BATCH = 1000;
/** Of one run; the next one comes within a minute. */
const RUN_MS = 20_000;

/** Repeatable; a run that was cut short is finished by the next. */
export async function purgeOld(db: Database, days: number, stopping: AbortSignal): Promise<void> {
  await markSends(db, days);
  const until = performance.now() + RUN_MS;
  const steps = [
    () => purgeChunk(db),
    () => finishSends(db),
    () => purgeSingles(db, days),
    () => purgeAttachments(db),
  ];
  for (const step of steps) {
    while (!stopping.aborted && performance.now() < until && (await step()) > 0);
  }
}

/** From then on it cannot be opened again, and the recount leaves it out. */
async function markSends(db: Database, days: number): Promise<void> {
  await sql`
    update sends set purged_at = now()
    where completed_at < now() - make_interval(days => ${days}::integer) and purged_at is null
  `.execute(db);
}

/** Everything of one chunk. @returns how many chunks */
async function purgeChunk(db: Database): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<{
      client_id: number;
      send_id: string;
      first_position: number;
      last_position: number;
    }>`
      select k.client_id, k.send_id, k.first_position, k.last_position
      from sends s join send_chunks k on k.client_id = s.client_id and k.send_id = s.id
      where s.purged_at is not null and s.emptied_at is null and k.purged_at is null
      limit 1
      for no key update of k skip locked
    `.execute(trx);
    if (!rows[0]) return 0;
    const { client_id, send_id, first_position, last_position } = rows[0];
    for (const table of ['fetched_contexts', 'messages', 'send_recipients']) {
      await sql`
        delete from ${sql.table(table)}
        where client_id = ${client_id} and send_id = ${send_id}
          and position between ${first_position} and ${last_position}
      `.execute(trx);
    }
    await sql`
      update send_chunks set purged_at = now()
      where client_id = ${client_id} and send_id = ${send_id} and first_position = ${first_position}
    `.execute(trx);
    return 1;
  });
}

async function finishSends(db: Database): Promise<number> {
  const { rows } = await sql`
    update sends s set emptied_at = now(), shared_context = '{}'
    where s.purged_at is not null and s.emptied_at is null
      and not exists (
        select from send_chunks k
        where k.client_id = s.client_id and k.send_id = s.id and k.purged_at is null)
    returning 1
  `.execute(db);
  return rows.length;
}

async function purgeSingles(db: Database, days: number): Promise<number> {
  const { rows } = await sql<{ purged: number }>`
    with old as materialized (
      select e.client_id, e.message_id
      from single_emails e join messages m on m.client_id = e.client_id and m.id = e.message_id
      where e.queue_state = 'settled'
        and e.queued_at < now() - make_interval(days => ${days}::integer)
        and m.settled_at < now() - make_interval(days => ${days}::integer)
      order by e.queued_at limit ${BATCH}
      for update of e, m skip locked
    ),
    attachments as (
      delete from message_attachments a using old
      where a.client_id = old.client_id and a.message_id = old.message_id
    ),
    recipients as (
      delete from message_recipients r using old
      where r.client_id = old.client_id and r.message_id = old.message_id
    ),
    emails as (
      delete from single_emails e using old
      where e.client_id = old.client_id and e.message_id = old.message_id
    ),
    purged as (
      delete from messages m using old
      where m.client_id = old.client_id and m.id = old.message_id
      returning 1
    )
    select count(*)::integer as purged from purged
  `.execute(db);
  return rows[0]!.purged;
}

/** Those of a request that is under way are not an hour old. */
async function purgeAttachments(db: Database): Promise<number> {
  const { rows } = await sql`
    with orphan as materialized (
      select c.client_id, c.sha256 from attachment_contents c
      where c.created_at < now() - interval '1 hour'
        and not exists (
          select from message_attachments a
          where a.client_id = c.client_id and a.sha256 = c.sha256)
      limit 100
      for update skip locked
    )
    delete from attachment_contents c using orphan o
    where c.client_id = o.client_id and c.sha256 = o.sha256
    returning 1
  `.execute(db);
  return rows.length;
}
