// Builds the raw message: headers, a text and an HTML part. The envelope is given apart and never
// derived from headers, so no value of a header can add a recipient.
import { createHash } from 'node:crypto';
import MailComposer from 'nodemailer/lib/mail-composer';
import { envelopeAddress } from '../address.ts';
import type { Rendered } from '../templates/render.ts';
import { personalFields, sharedFields } from './header-fields.ts';
import type { PersonalHeader, SharedHeader } from './header-fields.ts';

export interface Attachment {
  name: string;
  contentType: string;
  content: Buffer;
}

export interface Mail extends SharedHeader, Omit<PersonalHeader, 'subject'> {
  messageId: string;
  date: Date;
  content: Rendered;
  attachments?: Attachment[];
}

/** The message as it goes over the wire, before dot-stuffing. */
export async function compose(mail: Mail): Promise<Buffer> {
  const composer = new MailComposer({
    messageId: mail.messageId,
    date: mail.date,
    text: mail.content.text,
    html: mail.content.html,
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
  const fields = personalFields({ ...mail, subject: mail.content.subject }) + sharedFields(mail);
  return Buffer.concat([Buffer.from(fields), await composer.compile().build()]);
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
