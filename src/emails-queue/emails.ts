// Reading queued emails: one, or a page. Their status is in the words of the queue's documentation:
// Pending, Sent (at least one recipient accepted), Failed.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database } from '../database/connect.ts';
import type { JsonObject, MessageState } from '../database/schema.ts';
import { notFound } from '../errors.ts';
import { page, type Page, type PageRequest } from '../paging.ts';

export const EMAIL_STATUSES = ['Pending', 'Sent', 'Failed'] as const;
export type EmailStatus = (typeof EMAIL_STATUSES)[number];

export interface QueuedEmail {
  email_id: string;
  email_type: string | null;
  subject: string | null;
  email_template: string;
  email_data: JsonObject;
  priority_level: number;
  to_address: string[];
  cc_addresses: string[];
  bcc_addresses: string[];
  status: EmailStatus;
  /** The message's state behind the status. */
  state: MessageState;
  reason: string | null;
  queue: 'email.high' | 'email.normal' | 'email.low';
  attempts: number;
  last_reply: string | null;
  recipients: {
    kind: 'to' | 'cc' | 'bcc';
    email: string | null;
    status: EmailStatus | 'Skipped';
    reason: string | null;
    last_reply: string | null;
  }[];
  attachments: { name: string; content_type: string; size: number }[];
  created_at: Date;
  next_attempt_at: Date | null;
  settled_at: Date | null;
}

// An email whose outcome nobody knows is undecided: Pending. One that may be mailed to nobody failed.
const status = sql`case m.state when 'sent' then 'Sent' when 'failed' then 'Failed' when 'skipped' then 'Failed' else 'Pending' end`;

const SELECT = sql`
  select m.id as email_id, e.email_type, e.subject, e.template_key as email_template, e.email_data,
    e.priority_level, r.to_address, r.cc_addresses, r.bcc_addresses, ${status} as status, m.state, m.reason,
    case e.priority_level when 1 then 'email.high' when 2 then 'email.normal' else 'email.low' end as queue,
    m.attempts, m.last_reply, r.recipients, coalesce(a.attachments, '[]') as attachments, m.created_at,
    e.next_attempt_at, m.settled_at
  from single_emails e
  join messages m on m.client_id = e.client_id and m.id = e.message_id
  cross join lateral (
    select
      coalesce(json_agg(email_given order by ordinal) filter (where kind = 'to'), '[]') as to_address,
      coalesce(json_agg(email_given order by ordinal) filter (where kind = 'cc'), '[]') as cc_addresses,
      coalesce(json_agg(email_given order by ordinal) filter (where kind = 'bcc'), '[]') as bcc_addresses,
      json_agg(json_build_object('kind', kind, 'email', email_given,
        'status', case state when 'sent' then 'Sent' when 'failed' then 'Failed' when 'skipped' then 'Skipped' else 'Pending' end,
        'reason', reason, 'last_reply', last_reply) order by ordinal) as recipients
    from message_recipients where client_id = e.client_id and message_id = e.message_id
  ) r
  left join lateral (
    select json_agg(json_build_object('name', x.filename, 'content_type', x.content_type,
      'size', octet_length(c.content)) order by x.ordinal) as attachments
    from message_attachments x
    join attachment_contents c on c.client_id = x.client_id and c.sha256 = x.sha256
    where x.client_id = e.client_id and x.message_id = e.message_id
  ) a on true`;

/** @throws not_found */
export async function getQueuedEmail(
  db: Database,
  clientId: number,
  id: string,
): Promise<QueuedEmail> {
  const { rows } = await sql<QueuedEmail>`
    ${SELECT} where e.client_id = ${clientId} and e.message_id = ${id}`.execute(db);
  if (!rows[0]) throw notFound('The email');
  return rows[0];
}

/** Newest first. */
export function listQueuedEmails(
  db: Database,
  clientId: number,
  filter: { status?: EmailStatus | undefined; email_type?: string | undefined },
  request: PageRequest,
): Promise<Page<QueuedEmail>> {
  return page(
    request,
    [v.pipe(v.string(), v.uuid())],
    (email: QueuedEmail) => [email.email_id],
    async (after, limit) => {
      const { rows } = await sql<QueuedEmail>`
        ${SELECT} where e.client_id = ${clientId} and e.email_type is not null
          ${filter.status === undefined ? sql`` : sql`and ${status} = ${filter.status}`}
          ${filter.email_type === undefined ? sql`` : sql`and e.email_type = ${filter.email_type}`}
          ${after === undefined ? sql`` : sql`and e.message_id < ${after[0]}`}
        order by e.message_id desc limit ${limit}`.execute(db);
      return rows;
    },
  );
}
