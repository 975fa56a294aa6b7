// Builds the raw message: headers, a text and an HTML part. The envelope is given apart and never
// derived from headers, so no value of a header can add a recipient.
import { createHash } from 'node:crypto';
import MailComposer from 'nodemailer/lib/mail-composer';
import { envelopeAddress } from '../address.ts';
import type { Rendered } from '../templates/render.ts';

export interface Mailbox {
  name?: string | null;
  address: string;
}

export interface Attachment {
  name: string;
  contentType: string;
  content: Buffer;
}

export interface Mail {
  messageId: string;
  date: Date;
  from: Mailbox;
  replyTo?: string | null;
  to: Mailbox[];
  cc?: Mailbox[];
  content: Rendered;
  /** Of list mail, RFC 2919: what a mail client filters by. */
  listId?: string;
  /** Where the recipient can stop such mail (RFC 2369): one or more URIs, the first over https. */
  unsubscribe?: string[];
  attachments?: Attachment[];
}

/** The message as it goes over the wire, before dot-stuffing. */
export function compose(mail: Mail): Promise<Buffer> {
  const composer = new MailComposer({
    messageId: mail.messageId,
    date: mail.date,
    from: mailbox(mail.from),
    replyTo: mail.replyTo ? mailbox({ address: mail.replyTo }) : undefined,
    to: mail.to.map(mailbox),
    cc: mail.cc?.map(mailbox),
    subject: mail.content.subject,
    text: mail.content.text,
    html: mail.content.html,
    headers: {
      // RFC 3834, section 5: keeps vacation responders quiet.
      'Auto-Submitted': 'auto-generated',
      ...(mail.listId && { 'List-Id': mail.listId }),
      ...(mail.unsubscribe && oneClick(mail.unsubscribe)),
    },
    attachments: mail.attachments?.map(({ name, contentType, content }) => ({
      filename: name,
      contentType,
      content,
      // Always base64: quoted-printable would rewrite the line ends of a text file.
      contentTransferEncoding: 'base64',
      contentDisposition: 'attachment',
    })),
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  return composer.compile().build();
}

/** RFC 8058: a mail client may unsubscribe by itself, with one POST to the first URI. */
function oneClick(uris: string[]) {
  const value = uris.map((uri) => `<${uri}>`).join(', ');
  return {
    'List-Unsubscribe': { prepared: true, value }, // as it is: folding would cut a URI
    'List-Unsubscribe-Post': 'List-Unsubscribe=One-Click',
  };
}

function mailbox({ name, address }: Mailbox) {
  return { name: name ?? '', address: envelopeAddress(address) };
}

/** `<id@domain>`: the same for every attempt at a message, so that a duplicate can be recognised. */
export function messageIdOf(id: string, senderEmail: string): string {
  return `<${id}@${domainOf(senderEmail)}>`;
}

/** RFC 2919: a legible label of the key, made distinct by a hash of it, below the sender's domain. */
export function listIdOf(listKey: string, clientKey: string, senderEmail: string): string {
  const label = listKey
    .toLowerCase()
    .replace(/[^a-z0-9]+/gu, '-')
    .slice(0, 40)
    .replace(/^-+|-+$/gu, '');
  const hash = createHash('sha256').update(`${clientKey}\0${listKey}`).digest('hex').slice(0, 8);
  return `<${label ? `${label}-${hash}` : hash}.${domainOf(senderEmail)}>`;
}

function domainOf(address: string): string {
  const envelope = envelopeAddress(address);
  return envelope.slice(envelope.lastIndexOf('@') + 1);
}
