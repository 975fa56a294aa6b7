// Queueing one email: its type's defaults merged with the request's recipients, checked against its
// template, and stored with its files and its job in one transaction, so "stored but not queued"
// cannot exist. With an idempotency key the same request returns the same email.
import { createHash } from 'node:crypto';
import type { Client } from '../clients/clients.ts';
import { resolveSender } from '../clients/senders.ts';
import type { Database, Trx } from '../database/connect.ts';
import type { JsonObject } from '../database/schema.ts';
import { DomainError, invalid, type FieldError } from '../errors.ts';
import { createSingle, type RecipientKind } from '../messages/create-single.ts';
import { parseAddress, type Address } from '../address.ts';
import {
  contextErrors,
  splitContexts,
  type Template,
  type Templates,
} from '../templates/registry.ts';
import { storeAttachments, type NewAttachment } from './attachments.ts';
import { findEmailType, MOST_RECIPIENTS, type EmailType } from './email-types.ts';
import { getQueuedEmail, type QueuedEmail } from './emails.ts';

export interface EmailRequest {
  email_type: string;
  subject: string;
  email_template: string;
  email_data: JsonObject;
  priority_level: number;
  /** Absent takes the type's. */
  to_address?: Address[];
  cc_addresses?: Address[];
  bcc_addresses?: Address[];
  attachments: NewAttachment[];
}

/** What an Idempotency-Key stands for; `digest` is made by {@link digestEmailRequest}. */
export interface Idempotency {
  key: string;
  digest: Buffer;
}

/**
 * Queues the email, or returns the one an earlier call with this idempotency key queued.
 * @throws email_type_not_registered, idempotency_key_conflict, validation_failed; nothing is stored.
 */
export async function queueEmail(
  db: Database,
  templates: Templates,
  client: Client,
  request: EmailRequest,
  idempotency?: Idempotency,
): Promise<{ email: QueuedEmail; replayed: boolean }> {
  const earlier = idempotency && (await findReplay(db, client, idempotency));
  if (earlier) return { email: earlier, replayed: true };
  const type = await requireEmailType(db, client, request.email_type);
  const template = requireTemplateOfEmail(templates, request);
  checkData(template, request.email_data);
  const recipients = mergeRecipients(type, request);
  const sender = await resolveSender(db, client.id, type.from_email ?? undefined);
  const id = await db
    .transaction()
    .execute(async (trx) => {
      const message_id = await createSingle(trx, {
        client_id: client.id,
        template,
        email_data: request.email_data,
        subject: request.subject,
        priority_level: request.priority_level,
        email_type: type.email_type,
        sender,
        recipients,
        ...(idempotency && { idempotency }),
      });
      if (message_id === undefined) throw new KeyTaken();
      await storeAttachments(trx, { client_id: client.id, message_id }, request.attachments);
      return message_id;
    })
    .catch((error: unknown) => {
      if (error instanceof KeyTaken) return undefined;
      throw error;
    });
  // Another call with the key committed while ours waited for it.
  if (id === undefined)
    return { email: (await findReplay(db, client, idempotency!))!, replayed: true };
  return { email: await getQueuedEmail(db, client.id, id), replayed: false };
}

/** Rolls the transaction back: the message was made before the key was found taken. */
class KeyTaken extends Error {}

async function findReplay(
  db: Database | Trx,
  client: Client,
  { key, digest }: Idempotency,
): Promise<QueuedEmail | undefined> {
  const earlier = await db
    .selectFrom('single_emails')
    .select(['message_id', 'request_digest'])
    .where('client_id', '=', client.id)
    .where('idempotency_key', '=', key)
    .executeTakeFirst();
  if (!earlier) return undefined;
  if (earlier.request_digest?.equals(digest))
    return getQueuedEmail(db, client.id, earlier.message_id);
  throw new DomainError(
    'idempotency_key_conflict',
    'The Idempotency-Key was used for a different request.',
  );
}

async function requireEmailType(db: Database, client: Client, name: string): Promise<EmailType> {
  const type = await findEmailType(db, client.id, name);
  if (!type) throw new DomainError('email_type_not_registered', 'Email type is not registered');
  if (!type.is_active)
    throw new DomainError('email_type_not_registered', 'Email type is not active');
  return type;
}

function requireTemplateOfEmail(templates: Templates, { email_template }: EmailRequest): Template {
  const template = templates.get(email_template);
  if (template) return template;
  const message = `Template '${email_template}' does not exist in templates folders: emails`;
  throw invalid([{ path: 'email_template', message }], message);
}

function checkData(template: Template, data: JsonObject): void {
  const { shared, recipient } = splitContexts(template, data);
  const errors: FieldError[] = [
    ...contextErrors(template.sharedSchema, shared, 'email_data'),
    ...contextErrors(template.recipientSchema, recipient, 'email_data'),
  ];
  if (errors.length > 0) throw invalid(errors);
}

/**
 * Each of To, Cc and Bcc is the request's where given, else the type's. An address that stands more
 * than once is mailed once: as To before Cc before Bcc.
 */
function mergeRecipients(
  type: EmailType,
  request: EmailRequest,
): { kind: RecipientKind; address: Address }[] {
  const seen = new Set<string>();
  const merged: { kind: RecipientKind; address: Address }[] = [];
  const add = (kind: RecipientKind, given: Address[] | undefined, defaults: string[]) => {
    // What is stored was checked when it was stored.
    for (const address of given ?? defaults.map((text) => parseAddress(text) as Address)) {
      if (seen.has(address.email)) continue;
      seen.add(address.email);
      merged.push({ kind, address });
    }
  };
  add('to', request.to_address, type.to_addresses);
  add('cc', request.cc_addresses, type.cc_addresses);
  add('bcc', request.bcc_addresses, type.bcc_addresses);
  if (merged.length === 0) {
    const message = `must be given: the email type "${type.email_type}" has no recipients of its own`;
    throw invalid([{ path: 'to_address', message }]);
  }
  if (merged.length > MOST_RECIPIENTS) {
    const message = `To, Cc and Bcc together must be at most ${MOST_RECIPIENTS} addresses, these are ${merged.length}`;
    throw invalid([{ path: 'to_address', message }]);
  }
  return merged;
}

/**
 * SHA-256 of a request's text fields and files, each in its order: the same whatever the multipart
 * boundary, another for a changed field, file name or byte.
 */
export function digestEmailRequest(
  fields: readonly { name: string; value: string }[],
  files: readonly {
    field: string;
    name: string | undefined;
    declaredType: string;
    sha256: Buffer;
  }[],
): Buffer {
  // The order of different fields does not matter, that of one field's values does.
  const sorted = fields.toSorted((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const canonical = JSON.stringify([
    sorted.map(({ name, value }) => [name, value]),
    files.map((file) => [
      file.field,
      file.name ?? null,
      file.declaredType,
      file.sha256.toString('hex'),
    ]),
  ]);
  return createHash('sha256').update(canonical).digest();
}
