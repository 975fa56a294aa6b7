// Double opt-in of a whole list: every pending member is asked by a mail of their own, in one statement.
// Who was asked within the last day is not asked again, so a call that is repeated, or made twice at
// once, asks nobody twice.
import { sql } from 'kysely';
import { resolveSender } from '../clients/senders.ts';
import type { Trx } from '../database/connect.ts';
import { enqueueSingles } from '../queue.ts';
import { onUnknownOf } from '../templates/define.ts';
import { knownFields, type Templates } from '../templates/registry.ts';
import {
  checkData,
  DEFAULT_TEMPLATE,
  requireConfirming,
  type ConfirmationInput,
} from './confirmation.ts';
import { findList, lockList } from './lists.ts';

/** By one call: 10,000 take about a second. */
const MOST_ASKED = 10_000;
const ASK_AGAIN_SECONDS = 24 * 3600;
/** Low: nobody sits and waits for it, as for the mail to a single member. */
const PRIORITY = 5;

export interface Asked {
  queued: number;
  /** Pending members who were asked within the last day. */
  recently_asked: number;
  /** Pending members for the next call. */
  remaining: number;
}

/**
 * Queues a mail to each pending member of the list, by their keys. Suppressed addresses are passed over
 * when the mail is sent. The same template and data as for a single member.
 * @throws not_found, template_not_found, template_not_confirming, sender_not_found, no_default_sender,
 *   validation_failed; nothing is stored then
 */
export async function askPendingMembers(
  trx: Trx,
  templates: Templates,
  clientId: number,
  listKey: string,
  input: ConfirmationInput,
): Promise<Asked> {
  const { list } = await findList(trx, clientId, listKey);
  const template = requireConfirming(templates, input.template_key ?? DEFAULT_TEMPLATE);
  const data = {
    ...knownFields(template, { ...(list.name !== null && { list_name: list.name }) }),
    ...input.shared_context,
  };
  checkData(template, data);
  const knowsName = 'name' in knownFields(template, { name: '' }) && !('name' in data);
  const sender = await resolveSender(trx, clientId, input.from_email ?? undefined);
  // Held to the end: the next call sees whom this one has asked.
  const { id: listId } = await lockList(trx, clientId, listKey);
  const { rows } = await sql<Asked>`
    with pending as materialized (
      select m.source_object_key, m.name, m.contact_id,
        exists (
          select from single_emails e
          where e.client_id = ${clientId} and e.confirms_list_id = ${listId}
            and e.confirms_contact_id = m.contact_id
            and e.queued_at > now() - make_interval(secs => ${ASK_AGAIN_SECONDS})
        ) as is_recent
      from list_members m
      cross join lateral (
        select consent, unsubscribed_at, email from contacts
        where client_id = ${clientId} and id = m.contact_id limit 1
      ) c
      where m.client_id = ${clientId} and m.list_id = ${listId} and m.removed_at is null
        and c.email is not null and c.unsubscribed_at is null
        and strictest_consent(array[c.consent, m.consent]) = 'pending'
        and not exists (
          select from suppressions s
          where s.client_id = ${clientId} and s.address_hash = address_hash(${clientId}::integer, c.email)
            and s.unsubscribed_at is not null)
        and not exists (
          select from list_unsubscribes u
          where u.client_id = ${clientId} and u.contact_id = m.contact_id and u.list_id = ${listId})
    ),
    asked as materialized (
      select uuid7() as message_id, c.id as contact_id, c.email, c.email_given,
        coalesce(p.name, c.name) as name
      from pending p join contacts c on c.client_id = ${clientId} and c.id = p.contact_id
      where not p.is_recent and c.email is not null
      order by p.source_object_key
      limit ${MOST_ASKED}
      for key share of c -- not erased before the mail is stored
    ),
    message as (
      insert into messages (client_id, id) select ${clientId}, message_id from asked
    ),
    email as (
      insert into single_emails (client_id, message_id, template_key, template_version, email_data,
        priority_level, requires_consent, on_unknown, sender_id, sender_email, sender_name,
        sender_reply_to, confirms_list_id, confirms_contact_id)
      select ${clientId}, message_id, ${template.key}, ${template.version},
        case when ${knowsName} and name is not null
          then (${JSON.stringify(data)}::jsonb || jsonb_build_object('name', name))::json
          else ${JSON.stringify(data)}::json end,
        ${PRIORITY}, false, ${onUnknownOf(template)}, ${sender.id}, ${sender.email}, ${sender.name},
        ${sender.reply_to}, ${listId}, contact_id
      from asked
    ),
    recipient as (
      insert into message_recipients (client_id, message_id, ordinal, kind, email, email_given)
      select ${clientId}, message_id, 0, 'to', email, email_given from asked
    ),
    counted as (select count(*)::integer as queued from asked)
    select counted.queued,
      (count(*) filter (where is_recent))::integer as recently_asked,
      (count(*) filter (where not is_recent))::integer - counted.queued as remaining
    from counted left join pending on true
    group by counted.queued
  `.execute(trx);
  const asked = rows[0]!;
  if (asked.queued > 0) await enqueueSingles(trx);
  return asked;
}
