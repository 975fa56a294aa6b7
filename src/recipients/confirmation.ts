// Double opt-in: asks a member by mail whether they want the list's mail. The mail is a single email that
// carries the member's own confirmation link; nothing of the member changes before the link's button is
// pressed.
import { sql } from 'kysely';
import * as v from 'valibot';
import { resolveSender } from '../clients/senders.ts';
import type { Trx } from '../database/connect.ts';
import type { Consent, JsonObject } from '../database/schema.ts';
import { DomainError, invalid, notFound } from '../errors.ts';
import { freeData, key, line } from '../fields.ts';
import { createSingle, URGENT_PRIORITY } from '../messages/create-single.ts';
import {
  contextErrors,
  knownFields,
  requireTemplate,
  splitContexts,
  type Template,
  type Templates,
} from '../templates/registry.ts';
import { findList } from './lists.ts';

export const ConfirmationInput = v.strictObject({
  template_key: v.optional(v.nullable(line(255))),
  from_email: v.optional(v.nullable(key())),
  shared_context: v.optional(v.nullable(freeData())),
});
export type ConfirmationInput = v.InferOutput<typeof ConfirmationInput>;

export const DEFAULT_TEMPLATE = 'confirm-subscription';

/**
 * Queues one mail to the member and returns its message's id. The template gets the list's name and the
 * member's as `list_name` and `name`, where it knows such fields and the request gives none.
 * @throws not_found, template_not_found, template_not_confirming, sender_not_found, no_default_sender,
 *   validation_failed, consent_not_pending; nothing is stored then
 */
export async function askToConfirm(
  trx: Trx,
  templates: Templates,
  clientId: number,
  listKey: string,
  memberKey: string,
  input: ConfirmationInput,
): Promise<string> {
  const { id: list_id, list } = await findList(trx, clientId, listKey);
  const member = await findActiveMember(trx, clientId, list_id, memberKey);
  const template = requireConfirming(templates, input.template_key ?? DEFAULT_TEMPLATE);
  const email_data = {
    ...knownFields(template, {
      ...(list.name !== null && { list_name: list.name }),
      ...(member.name !== null && { name: member.name }),
    }),
    ...input.shared_context,
  };
  checkData(template, email_data);
  const sender = await resolveSender(trx, clientId, input.from_email ?? undefined);
  if (member.consent === 'subscribed')
    throw new DomainError('consent_not_pending', 'The member is subscribed already.');
  const id = await createSingle(trx, {
    client_id: clientId,
    template,
    email_data,
    subject: null,
    priority_level: URGENT_PRIORITY,
    email_type: null,
    sender,
    recipients: [{ kind: 'to', address: { email: member.email, given: member.email_given } }],
    confirms: { list_id, contact_id: member.contact_id },
  });
  return id!; // without an idempotency key there is no conflict
}

export function checkData(template: Template, data: JsonObject): void {
  const { shared, recipient } = splitContexts(template, data);
  const errors = [
    ...contextErrors(template.sharedSchema, shared, 'shared_context'),
    ...contextErrors(template.recipientSchema, recipient, 'shared_context'),
  ];
  if (errors.length > 0) throw invalid(errors);
}

interface AskedMember {
  contact_id: number;
  email: string;
  email_given: string;
  name: string | null;
  /** What counts: the strictest of the contact's, the member's and the person's own. */
  consent: Consent;
}

/** Not erased before the mail is stored. @throws not_found, also for one who was removed or erased */
async function findActiveMember(
  trx: Trx,
  clientId: number,
  listId: number,
  memberKey: string,
): Promise<AskedMember> {
  const { rows } = await sql<AskedMember>`
    select c.id as contact_id, c.email, c.email_given, coalesce(m.name, c.name) as name,
      strictest_consent(array[
        c.consent, m.consent,
        case when coalesce(c.unsubscribed_at, s.unsubscribed_at, u.unsubscribed_at) is not null
          then 'unsubscribed' end
      ]) as consent
    from list_members m
    join contacts c on c.client_id = m.client_id and c.id = m.contact_id
    left join suppressions s
      on s.client_id = c.client_id and s.address_hash = address_hash(c.client_id, c.email)
    left join list_unsubscribes u
      on u.client_id = m.client_id and u.contact_id = m.contact_id and u.list_id = m.list_id
    where m.client_id = ${clientId} and m.list_id = ${listId} and m.source_object_key = ${memberKey}
      and m.removed_at is null and c.email is not null
    for key share of c
  `.execute(trx);
  if (!rows[0]) throw notFound(`The member "${memberKey}"`);
  return rows[0];
}

/** Marketing mail would be withheld from those who have not agreed: it cannot ask them. */
export function requireConfirming(templates: Templates, templateKey: string): Template {
  const template = requireTemplate(templates, templateKey);
  if (template.category === 'transactional' && template.shows.confirm) return template;
  throw new DomainError(
    'template_not_confirming',
    `The template "${templateKey}" cannot ask: it must be transactional and show links.confirm.`,
  );
}
