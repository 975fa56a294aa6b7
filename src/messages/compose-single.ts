// A single email as bytes: the same headers for each of its recipients, but the links are one person's.
// Throws where its template does; the mail then fails.
import { linkTo, unsubscribeHeader, type LinkRef } from '../recipients/links.ts';
import { compose, messageIdOf, type Attachment } from '../smtp/compose.ts';
import { splitContexts } from '../templates/registry.ts';
import { headerText, renderTemplate } from '../templates/render.ts';
import type { Delivery } from './delivery.ts';
import type { ClaimedSingle, SingleRecipient } from './claim-single.ts';
import type { RecipientKind } from './create-single.ts';

/**
 * For these of its recipients; just one, where the mail has a way out. To and Cc stand in the headers, Bcc
 * in the envelope only.
 */
export async function composeSingle(
  { templates, linker }: Delivery,
  email: ClaimedSingle,
  attachments: Attachment[],
  recipients: SingleRecipient[],
): Promise<Buffer> {
  const template = templates.get(email.template_key)!;
  const leave = email.requires_consent ? unsubscribeRef(email, recipients) : undefined;
  const confirm = confirmRef(email);
  const content = await renderTemplate(template, {
    ...splitContexts(template, email.email_data),
    links: {
      ...(leave && { unsubscribe: linkTo(linker, leave) }),
      ...(confirm && { confirm: linkTo(linker, confirm) }),
    },
  });
  const visible = (kind: RecipientKind) =>
    email.recipients
      .filter((recipient) => recipient.kind === kind)
      .map((recipient) => ({ address: recipient.email_given }));
  return compose({
    messageId: messageIdOf(email.message_id, email.sender_email),
    date: email.claimed_at,
    from: { name: email.sender_name, address: email.sender_email },
    replyTo: email.sender_reply_to,
    to: visible('to'),
    cc: visible('cc'),
    content: email.subject === null ? content : { ...content, subject: headerText(email.subject) },
    attachments,
    ...(leave && { unsubscribe: unsubscribeHeader(linker, leave) }),
  });
}

/** It belongs to no list: its way out is out of everything the client sends. */
function unsubscribeRef({ client_id }: ClaimedSingle, recipients: SingleRecipient[]): LinkRef {
  const contact_id = recipients[0]?.contact_id;
  if (typeof contact_id !== 'number' || recipients.length > 1)
    throw new Error("the way out is one contact's own");
  return { purpose: 'unsubscribe', client_id, contact_id, list_id: null };
}

function confirmRef(email: ClaimedSingle): LinkRef | undefined {
  const { client_id, confirms_contact_id: contact_id, confirms_list_id: list_id } = email;
  return contact_id === null ? undefined : { purpose: 'confirm', client_id, contact_id, list_id };
}
