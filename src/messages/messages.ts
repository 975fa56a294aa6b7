// Reading messages: one, those of a send, and everything that went to an address.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database } from '../database/connect.ts';
import type { MessageState } from '../database/schema.ts';
import { notFound } from '../errors.ts';
import { page, type Page, type PageRequest } from '../paging.ts';
import type { Address } from '../address.ts';

export interface Message {
  id: string;
  kind: 'list' | 'single';
  send_id: string | null;
  source_object_key: string | null;
  template_key: string;
  /** Of a list message; a single email has `recipients`. */
  email: string | null;
  recipients:
    | {
        kind: string;
        email: string;
        state: string;
        reason: string | null;
        last_reply: string | null;
      }[]
    | null;
  state: MessageState;
  reason: string | null;
  attempts: number;
  /** True once its outcome was unknown: a duplicate is possible. */
  was_unknown: boolean;
  last_reply: string | null;
  created_at: Date;
  next_attempt_at: Date | null;
  settled_at: Date | null;
}

const selectMessages = (more = sql``) => sql`
  select m.id, case when m.send_id is null then 'single' else 'list' end as kind, m.send_id,
    m.source_object_key, coalesce(s.template_key, e.template_key) as template_key,
    c.email_given as email, r.recipients, m.state, m.reason, m.attempts, m.was_unknown, m.last_reply,
    m.created_at, case when m.state = 'queued' then m.next_attempt_at end as next_attempt_at, m.settled_at
    ${more}
  from messages m
  left join sends s on s.client_id = m.client_id and s.id = m.send_id
  left join contacts c on c.client_id = m.client_id and c.id = m.contact_id
  left join single_emails e on e.client_id = m.client_id and e.message_id = m.id
  left join lateral (
    select json_agg(json_build_object('kind', r.kind, 'email', r.email_given, 'state', r.state,
      'reason', r.reason, 'last_reply', r.last_reply) order by r.ordinal) as recipients
    from message_recipients r where r.client_id = m.client_id and r.message_id = m.id
  ) r on m.send_id is null`;

/** @throws not_found */
export async function getMessage(db: Database, clientId: number, id: string): Promise<Message> {
  const { rows } =
    await sql<Message>`${selectMessages()} where m.client_id = ${clientId} and m.id = ${id}`.execute(
      db,
    );
  if (!rows[0]) throw notFound('The message');
  return rows[0];
}

/** In order of the snapshot. A member whose chunk is not prepared yet has no message yet. */
export async function listMessagesOfSend(
  db: Database,
  clientId: number,
  sendId: string,
  state: MessageState | undefined,
  request: PageRequest,
): Promise<Page<Message>> {
  type Row = Message & { position: number };
  const position = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 31 - 1));
  const found = await page(
    request,
    [position],
    (row: Row) => [row.position],
    async (after, limit) => {
      const { rows } = await sql<Row>`
      ${selectMessages(sql`, m.position`)}
      where m.client_id = ${clientId} and m.send_id = ${sendId}
        ${state === undefined ? sql`` : sql`and m.state = ${state}`}
        ${after === undefined ? sql`` : sql`and m.position > ${after[0]}`}
      order by m.position limit ${limit}`.execute(db);
      return rows;
    },
  );
  return { ...found, rows: found.rows.map(({ position: _position, ...message }) => message) };
}

/** Newest first: what lists sent to the contact and what single emails named the address. */
export function listMessagesTo(
  db: Database,
  clientId: number,
  address: Address,
  request: PageRequest,
): Promise<Page<Message>> {
  return page(
    request,
    [v.pipe(v.string(), v.uuid())],
    (row: Message) => [row.id],
    async (after, limit) => {
      const { rows } = await sql<Message>`
      ${selectMessages()} where m.client_id = ${clientId} and m.id in (
        select x.id from messages x join contacts k on k.client_id = x.client_id and k.id = x.contact_id
        where k.client_id = ${clientId} and k.email = ${address.email}
        union all
        select x.message_id from message_recipients x
        where x.client_id = ${clientId} and x.email = ${address.email}
      ) ${after === undefined ? sql`` : sql`and m.id < ${after[0]}`}
      order by m.id desc limit ${limit}`.execute(db);
      return rows;
    },
  );
}
