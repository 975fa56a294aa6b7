// Reading sends: one, by its key, or a page. Counts come from the reporting views, which sum the
// chunks' tallies, so they cost milliseconds while a million-member send drains.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database } from '../database/connect.ts';
import type { JsonObject, SendState } from '../database/schema.ts';
import { notFound } from '../errors.ts';
import { isUuid } from '../fields.ts';
import { page, type Page, type PageRequest } from '../paging.ts';

export interface Counts {
  intended: number;
  queued: number;
  sent: number;
  failed: number;
  skipped: number;
  unknown: number;
}

export interface Send {
  id: string;
  send_key: string;
  list_key: string;
  template_key: string;
  from_email: string;
  state: SendState;
  counts: Counts;
  skipped_by_reason: Record<string, number>;
  metadata: JsonObject;
  scheduled_at: Date | null;
  expires_at: Date | null;
  created_at: Date;
  completed_at: Date | null;
}

const SELECT = sql`
  select s.id, s.send_key, s.list_key, s.template_key, s.sender_id as from_email, s.state,
    json_build_object('intended', c.intended, 'queued', c.queued, 'sent', c.sent, 'failed', c.failed,
      'skipped', c.skipped, 'unknown', c.unknown) as counts,
    coalesce((
      select json_object_agg(k.reason, k.members order by k.reason) from reporting.send_skips k
      where k.send_id = s.id
    ), '{}') as skipped_by_reason,
    s.metadata, s.scheduled_at, s.expires_at, s.created_at, s.completed_at
  from sends s join reporting.send_counts c on c.send_id = s.id`;

/** @throws not_found */
export async function getSend(db: Database, clientId: number, id: string): Promise<Send> {
  const { rows } =
    await sql<Send>`${SELECT} where s.client_id = ${clientId} and s.id = ${id}`.execute(db);
  if (!rows[0]) throw notFound('The send');
  return rows[0];
}

/** @throws not_found */
export async function getSendByKey(db: Database, clientId: number, sendKey: string): Promise<Send> {
  const { rows } = await sql<Send>`
    ${SELECT} where s.client_id = ${clientId} and s.send_key = ${sendKey}`.execute(db);
  if (!rows[0]) throw notFound('The send');
  return rows[0];
}

/** Newest first. */
export function listSends(
  db: Database,
  clientId: number,
  filter: { list_key?: string | undefined; state?: SendState | undefined },
  request: PageRequest,
): Promise<Page<Send>> {
  return page(
    request,
    [v.pipe(v.string(), v.uuid())],
    (send: Send) => [send.id],
    async (after, limit) => {
      const { rows } = await sql<Send>`
      ${SELECT} where s.client_id = ${clientId}
        ${filter.list_key === undefined ? sql`` : sql`and s.list_key = ${filter.list_key}`}
        ${filter.state === undefined ? sql`` : sql`and s.state = ${filter.state}`}
        ${after === undefined ? sql`` : sql`and s.id < ${after[0]}`}
      order by s.id desc limit ${limit}`.execute(db);
      return rows;
    },
  );
}

/** For the command line, which may look at every client's sends. @throws not_found */
export async function findSendById(
  db: Database,
  id: string,
): Promise<{ client_id: number; send_id: string }> {
  if (!isUuid(id)) throw notFound(`The send "${id}"`);
  const found = await db
    .selectFrom('sends')
    .select(['client_id', 'id as send_id'])
    .where('id', '=', id)
    .executeTakeFirst();
  if (!found) throw notFound(`The send "${id}"`);
  return found;
}
