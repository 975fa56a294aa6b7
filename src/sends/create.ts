// The trigger: one transaction stores the send, freezes the list's active members and adds the first
// job, so "accepted but never queued" cannot exist. The unique (client, send_key) decides between
// concurrent identical calls: one inserts, the others wait for it and return its send.
import { sql } from 'kysely';
import type { Client } from '../clients/clients.ts';
import { getContextCallback } from '../clients/context-callback.ts';
import { resolveSender } from '../clients/senders.ts';
import type { Database } from '../database/connect.ts';
import { urlFlaw, type CallbackPolicy } from '../callback/post.ts';
import { DomainError, invalid, MAX_FIELD_ERRORS, type FieldError } from '../errors.ts';
import { enqueue } from '../queue.ts';
import { findList } from '../recipients/lists.ts';
import {
  contextErrors,
  requireTemplate,
  type Template,
  type Templates,
} from '../templates/registry.ts';
import { onUnknownOf } from '../templates/define.ts';
import { differingFields, digestRequest, type RequestDigest } from './digest.ts';
import type { SendInput } from './send-input.ts';
import { snapshotMembers } from './snapshot.ts';

/** Members in one call. */
const DEFAULT_CALLBACK_CHUNK_SIZE = 500;

export interface Triggered {
  send_id: string;
  replayed: boolean;
}

/**
 * Accepts a trigger, or returns the send an earlier one with this send_key made. A replay looks at
 * nothing but the earlier request, so it never fails because something was changed since.
 * @throws send_key_conflict, not_found (list), template_not_found, sender_not_found,
 *   no_default_sender, context_callback_not_configured, validation_failed; nothing is written then.
 */
export async function triggerSend(
  db: Database,
  { templates, callback: policy }: { templates: Templates; callback: CallbackPolicy },
  client: Client,
  listKey: string,
  input: SendInput,
): Promise<Triggered> {
  const digest = digestRequest({ list_key: listKey, ...input });
  const earlier = await findReplay(db, client, input.send_key, digest);
  if (earlier) return earlier;
  const { id: listId } = await findList(db, client.id, listKey);
  const template = requireTemplate(templates, input.template_key);
  const sender = await resolveSender(db, client.id, input.from_email ?? undefined);
  checkContexts(template, input);
  checkExpiry(input);
  const callback = await resolveCallback(db, policy, client, input);
  return db.transaction().execute(async (trx) => {
    const inserted = await trx
      .insertInto('sends')
      .values({
        client_id: client.id,
        send_key: input.send_key,
        list_id: listId,
        list_key: listKey,
        request_digest: JSON.stringify(digest),
        template_key: template.key,
        template_version: template.version,
        requires_consent: template.category === 'marketing' || input.requires_consent === true,
        on_unknown: onUnknownOf(template),
        sender_id: sender.id,
        sender_email: sender.email,
        sender_name: sender.name,
        sender_reply_to: sender.reply_to,
        shared_context: JSON.stringify(input.shared_context ?? {}),
        ...callback,
        scheduled_at: sql<Date | null>`${input.scheduled_at ?? null}::timestamptz`,
        expires_at: sql<Date | null>`${input.expires_at ?? null}::timestamptz`,
        state: sql`case when ${input.scheduled_at ?? null}::timestamptz > now() then 'scheduled' else 'queued' end`,
        metadata: JSON.stringify(input.metadata ?? {}),
      })
      .onConflict((conflict) => conflict.columns(['client_id', 'send_key']).doNothing())
      .returning(['id', 'state'])
      .executeTakeFirst();
    // Somebody else's identical call committed while ours waited on the unique key.
    if (!inserted) return (await findReplay(trx, client, input.send_key, digest))!;
    const send = { client_id: client.id, send_id: inserted.id };
    const contexts = callback ? 'fetched later' : (input.recipient_context ?? undefined);
    await snapshotMembers(trx, send, listId, template, contexts);
    if (inserted.state === 'queued') await enqueue(trx, 'expand_send', send);
    return { send_id: inserted.id, replayed: false };
  });
}

async function findReplay(
  db: Database,
  client: Client,
  sendKey: string,
  digest: RequestDigest,
): Promise<Triggered | undefined> {
  const earlier = await db
    .selectFrom('sends')
    .select(['id', 'request_digest'])
    .where('client_id', '=', client.id)
    .where('send_key', '=', sendKey)
    .executeTakeFirst();
  if (!earlier) return undefined;
  const differing = differingFields(earlier.request_digest, digest);
  if (differing.length === 0) return { send_id: earlier.id, replayed: true };
  throw new DomainError(
    'send_key_conflict',
    `The send_key was used for a different request; these fields differ: ${differing.join(', ')}.`,
    differing.map((path) => ({
      path,
      message: 'differs from the request first sent under this send_key',
    })),
  );
}

function checkContexts(template: Template, input: SendInput): void {
  const errors: FieldError[] = contextErrors(
    template.sharedSchema,
    input.shared_context ?? {},
    'shared_context',
  );
  for (const [memberKey, context] of Object.entries(input.recipient_context ?? {})) {
    if (errors.length >= MAX_FIELD_ERRORS) break;
    errors.push(
      ...contextErrors(template.recipientSchema, context, `recipient_context.${memberKey}`),
    );
  }
  if (errors.length > 0) throw invalid(errors);
}

function checkExpiry({ expires_at }: SendInput): void {
  if (!expires_at || Date.parse(expires_at) > Date.now()) return;
  throw invalid([{ path: 'expires_at', message: 'must be in the future' }]);
}

/** Where contexts are fetched from, frozen with the send: the request's URL, else the client's. */
async function resolveCallback(
  db: Database,
  policy: CallbackPolicy,
  { id }: Client,
  { context_callback: wanted }: SendInput,
): Promise<{ callback_url: string; callback_chunk_size: number } | undefined> {
  if (!wanted) return undefined;
  const url = wanted.url ?? (await getContextCallback(db, id)).url;
  if (url === null) {
    throw new DomainError(
      'context_callback_not_configured',
      'The client has no URL for context callbacks: give context_callback.url, or PUT /api/client/context-callback.',
    );
  }
  const flaw = urlFlaw(url, policy);
  if (flaw !== undefined) throw invalid([{ path: 'context_callback.url', message: flaw }]);
  return {
    callback_url: url,
    callback_chunk_size: wanted.chunk_size ?? DEFAULT_CALLBACK_CHUNK_SIZE,
  };
}
