// The members of one call: who is asked for, and what becomes of all of them. Only members that may be
// mailed and have no context yet are asked for. Storing is one transaction: contexts, messages, tally and
// how far the chunk has come.
import { sql } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import type { JsonObject, MessageState } from '../database/schema.ts';
import { tally } from '../messages/tally.ts';
import type { ChunkRef } from '../queue.ts';
import { eligibility, type SendRules } from '../recipients/eligibility.ts';
import type { FailedContext, Fetched } from './callback-answer.ts';

export interface Page {
  /** Positions of the snapshot. */
  from: number;
  to: number;
  members: PageMember[];
}

export interface PageMember {
  position: number;
  source_object_key: string;
  email_given: string;
  /** Why it is not mailed, when it was looked at for the call. */
  skip: string | null;
  has_context: boolean;
  /** Of its message, where there is one: contexts that were missing are fetched again. */
  state: MessageState | null;
}

type Chunk = ChunkRef & SendRules;

export async function readPage(
  db: Database,
  chunk: Chunk,
  from: number,
  to: number,
): Promise<Page> {
  const { client_id, send_id } = chunk;
  const { joins, reason } = eligibility(
    client_id,
    chunk,
    sql`r.contact_id`,
    sql`r.source_object_key`,
  );
  const { rows } = await sql<PageMember>`
    select r.position, r.source_object_key, c.email_given, ${reason} as skip,
      f.position is not null as has_context, m.state
    from send_recipients r
    ${joins}
    left join fetched_contexts f
      on f.client_id = r.client_id and f.send_id = r.send_id and f.position = r.position
    left join messages m
      on m.client_id = r.client_id and m.send_id = r.send_id and m.position = r.position
    where r.client_id = ${client_id} and r.send_id = ${send_id} and r.position between ${from} and ${to}
    order by r.position
  `.execute(db);
  return { from, to, members: rows };
}

export function askedOf({ members }: Page): PageMember[] {
  return members.filter(isAsked);
}

function isAsked({ skip, has_context, state }: PageMember): boolean {
  return skip === null && !has_context && (state === null || state === 'queued');
}

/** @returns false where the worker does not hold the chunk any more, or the page is stored already */
export async function storePage(
  trx: Trx,
  worker: number,
  chunk: Chunk & { first_position: number },
  page: Page,
  fetched: Exclude<Fetched, { kind: 'later' }>,
): Promise<boolean> {
  const { client_id, send_id, chunk_no } = chunk;
  const { rows: held } = await sql`
    select from send_chunks
    where client_id = ${client_id} and send_id = ${send_id} and chunk_no = ${chunk_no}
      and leased_by = ${worker} and prepared_at is null
      and coalesce(fetched_to, first_position - 1) = ${page.from} - 1
    for no key update
  `.execute(trx);
  if (held.length === 0) return false;
  const { joins, reason } = eligibility(
    client_id,
    chunk,
    sql`r.contact_id`,
    sql`r.source_object_key`,
  );
  await sql`
    with given as materialized (
      select * from json_to_recordset(${JSON.stringify(outcomes(page, fetched))}::json) as g(
        position integer, skip text, context json, failure text, detail text)
    ),
    member as materialized (
      select r.client_id, r.send_id, r.position, r.contact_id, r.source_object_key,
        coalesce(${reason}, g.skip) as skip, g.context, g.failure, g.detail
      from given g
      join send_recipients r
        on r.client_id = ${client_id} and r.send_id = ${send_id} and r.position = g.position
      ${joins}
      order by r.position
    ),
    stored as (
      insert into fetched_contexts (client_id, send_id, position, context)
      select client_id, send_id, position, context from member
      where context is not null and skip is null
      on conflict do nothing
    ),
    made as (
      insert into messages (client_id, send_id, position, contact_id, source_object_key, state,
        reason, last_reply, settled_at)
      select client_id, send_id, position, contact_id, source_object_key,
        case when skip is not null then 'skipped' when failure is not null then 'failed' else 'queued' end,
        coalesce(skip, failure),
        case when skip is null then detail end,
        case when coalesce(skip, failure) is not null then now() end
      from member
      on conflict do nothing
      returning state, reason
    ),
    again as (
      update messages m set
        state = case when g.skip is not null then 'skipped' else 'failed' end,
        reason = coalesce(g.skip, g.failure),
        last_reply = case when g.skip is null then g.detail else m.last_reply end,
        settled_at = now()
      from member g
      where m.client_id = g.client_id and m.send_id = g.send_id and m.position = g.position
        and m.state = 'queued' and coalesce(g.skip, g.failure) is not null
      returning m.state, m.reason
    ),
    settled as (select * from made union all select * from again)
    ${tally(chunk, sql`settled`, [
      sql`fetched_to = ${page.to}, fetch_attempts = 0, fetch_failing_since = null, last_fetch_error = null`,
    ])}
  `.execute(trx);
  return true;
}

interface GivenMember {
  position: number;
  skip?: string;
  context?: JsonObject;
  failure?: FailedContext['reason'];
  detail?: string;
}

/** One for each member; those that have a message and were not asked for stay as they are. */
function outcomes(page: Page, fetched: Exclude<Fetched, { kind: 'later' }>): GivenMember[] {
  return page.members.map((member) => {
    const { position, skip } = member;
    if (skip !== null) return { position, skip };
    if (!isAsked(member)) return { position };
    if (fetched.kind === 'failed') return failureOf(position, fetched);
    const { failed, context } = fetched.contexts.get(member.source_object_key)!;
    return failed ? failureOf(position, failed) : { position, context };
  });
}

function failureOf(position: number, { reason, detail }: FailedContext): GivenMember {
  return { position, failure: reason, detail };
}
