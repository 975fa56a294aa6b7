// Single emails as messages: stored with their recipients and their job, in the caller's transaction.
import { sql } from 'kysely';
import type { Address } from '../address.ts';
import type { Sender } from '../clients/senders.ts';
import type { Trx } from '../database/connect.ts';
import type { JsonObject } from '../database/schema.ts';
import { enqueue, enqueueSingles } from '../queue.ts';
import { onUnknownOf } from '../templates/define.ts';
import type { Template } from '../templates/registry.ts';

export type RecipientKind = 'to' | 'cc' | 'bcc';

export interface NewSingle {
  client_id: number;
  template: Template;
  /** The template's two contexts taken together. */
  email_data: JsonObject;
  /** Null takes the template's. */
  subject: string | null;
  /** 1 high, 2 normal, 3–10 low. */
  priority_level: number;
  email_type: string | null;
  sender: Sender;
  recipients: { kind: RecipientKind; address: Address }[];
  /** The mail carries the link by which this person confirms. */
  confirms?: { list_id: number; contact_id: number };
  idempotency?: { key: string; digest: Buffer };
}

/** Priority 1 leaves at once, by a job of its own; the rest is claimed by priority, then age. */
export const URGENT_PRIORITY = 1;

/**
 * Stores the email and its job; returns the message's id, or undefined where the idempotency key is
 * taken: the transaction must then be rolled back.
 */
export async function createSingle(trx: Trx, email: NewSingle): Promise<string | undefined> {
  const { client_id, template, sender, idempotency } = email;
  const { id } = await trx
    .insertInto('messages')
    .values({ client_id })
    .returning('id')
    .executeTakeFirstOrThrow();
  const stored = await trx
    .insertInto('single_emails')
    .values({
      client_id,
      message_id: id,
      email_type: email.email_type,
      subject: email.subject,
      template_key: template.key,
      template_version: template.version,
      email_data: JSON.stringify(email.email_data),
      priority_level: email.priority_level,
      requires_consent: template.category === 'marketing',
      on_unknown: onUnknownOf(template),
      sender_id: sender.id,
      sender_email: sender.email,
      sender_name: sender.name,
      sender_reply_to: sender.reply_to,
      idempotency_key: idempotency?.key ?? null,
      request_digest: idempotency?.digest ?? null,
      confirms_list_id: email.confirms?.list_id ?? null,
      confirms_contact_id: email.confirms?.contact_id ?? null,
    })
    .onConflict((conflict) => conflict.columns(['client_id', 'idempotency_key']).doNothing())
    .returning('message_id')
    .executeTakeFirst();
  if (!stored) return undefined;
  if (template.category === 'marketing') await addContacts(trx, client_id, email.recipients);
  await trx
    .insertInto('message_recipients')
    .values(
      email.recipients.map(({ kind, address }, ordinal) => ({
        client_id,
        message_id: id,
        ordinal,
        kind,
        email: address.email,
        email_given: address.given,
      })),
    )
    .execute();
  if (email.priority_level === URGENT_PRIORITY) {
    await enqueue(trx, 'deliver_urgent', { client_id, message_id: id });
  } else {
    await enqueueSingles(trx);
  }
  return id;
}

/** Who gets marketing mail can unsubscribe, and what they decide is kept with the contact. */
async function addContacts(
  trx: Trx,
  clientId: number,
  recipients: NewSingle['recipients'],
): Promise<void> {
  const addresses = JSON.stringify(recipients.map(({ address }) => address));
  await sql`
    insert into contacts (client_id, email, email_given)
    select ${clientId}, r.email, r.given
    from jsonb_to_recordset(${addresses}::jsonb) as r(email text, given text)
    order by r.email -- as the upsert of members does: neither waits for the other in a circle
    on conflict (client_id, email) where email is not null do nothing
  `.execute(trx);
}
