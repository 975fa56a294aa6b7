// The trigger: one transaction stores the send, freezes the list's active members and adds the first
// job, so "accepted but never queued" cannot exist. The unique (client, send_key) decides between
// concurrent identical calls: one inserts, the others wait for it and return its send.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Client } from '../clients/clients.ts';
import { resolveSender } from '../clients/senders.ts';
import type { Database, Trx } from '../database/connect.ts';
import type { JsonObject } from '../database/schema.ts';
import { DomainError, invalid, MAX_FIELD_ERRORS, type FieldError } from '../errors.ts';
import { freeData, jsonObject, key, line } from '../fields.ts';
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

/** Contexts keyed by source_object_key. Not v.record, which drops a key such as "constructor". */
function contextsByKey() {
  return v.pipe(
    jsonObject(),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      for (const [memberKey, value] of Object.entries(dataset.value)) {
        const parsed = v.safeParse(freeData(), value);
        if (parsed.success) continue;
        addIssue({
          message: parsed.issues[0].message,
          path: [{ type: 'object', origin: 'value', input: dataset.value, key: memberKey, value }],
        });
      }
    }),
    v.transform((contexts) => contexts as Record<string, JsonObject>),
  );
}

export const SendInput = v.strictObject({
  send_key: v.pipe(
    line(255),
    v.check((text) => text !== '.' && text !== '..', 'must not be "." or ".."'), // in a URL they go
  ),
  template_key: line(255),
  from_email: v.optional(v.nullable(key())),
  shared_context: v.optional(v.nullable(freeData())),
  recipient_context: v.optional(v.nullable(contextsByKey())),
  requires_consent: v.optional(v.nullable(v.boolean())),
  metadata: v.optional(v.nullable(freeData())),
});
export type SendInput = v.InferOutput<typeof SendInput>;

export interface Triggered {
  send_id: string;
  replayed: boolean;
}

/**
 * Accepts a trigger, or returns the send an earlier one with this send_key made. A replay looks at
 * nothing but the earlier request, so it never fails because something was changed since.
 * @throws send_key_conflict, not_found (list), template_not_found, sender_not_found,
 *   no_default_sender, validation_failed; nothing is written then.
 */
export async function triggerSend(
  db: Database,
  templates: Templates,
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
        metadata: JSON.stringify(input.metadata ?? {}),
      })
      .onConflict((conflict) => conflict.columns(['client_id', 'send_key']).doNothing())
      .returning('id')
      .executeTakeFirst();
    // Somebody else's identical call committed while ours waited on the unique key.
    if (!inserted) return (await findReplay(trx, client, input.send_key, digest))!;
    const send = { client_id: client.id, send_id: inserted.id };
    await snapshotMembers(trx, send, listId, template, input.recipient_context ?? undefined);
    await enqueue(trx, 'expand_send', send);
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

/** One INSERT … SELECT at one instant: the snapshot is the list as that statement sees it. */
async function snapshotMembers(
  trx: Trx,
  send: { client_id: number; send_id: string },
  listId: number,
  template: Template,
  contexts: Record<string, JsonObject> | undefined,
): Promise<void> {
  const personal = contexts
    ? {
        value: sql`p.value`,
        join: sql`left join json_each(${JSON.stringify(contexts)}::json) p on p.key = m.source_object_key`,
      }
    : { value: sql`null::json`, join: sql`` };
  const { rows } = await sql<{ members: number; with_context: number }>`
    with snapshot as (
      insert into send_recipients (client_id, send_id, position, contact_id, source_object_key, name, context)
      select m.client_id, ${send.send_id}, row_number() over (), m.contact_id, m.source_object_key, m.name,
        ${personal.value}
      from list_members m ${personal.join}
      where m.client_id = ${send.client_id} and m.list_id = ${listId} and m.removed_at is null
      returning context
    ),
    counted as (select count(*) as members, count(context) as with_context from snapshot)
    update sends s set intended = counted.members from counted
    where s.client_id = ${send.client_id} and s.id = ${send.send_id}
    returning counted.members, counted.with_context
  `.execute(trx);
  const { members, with_context } = rows[0]!;
  if (contexts && with_context < Object.keys(contexts).length) {
    throw invalid(await strayContexts(trx, send, contexts));
  }
  const missing = contextErrors(template.recipientSchema, {}, '');
  if (with_context < members && missing.length > 0) {
    throw invalid(await membersWithoutContext(trx, send, missing));
  }
}

async function strayContexts(
  trx: Trx,
  send: { client_id: number; send_id: string },
  contexts: Record<string, JsonObject>,
): Promise<FieldError[]> {
  const { rows } = await sql<{ key: string }>`
    select given.key from json_object_keys(${JSON.stringify(contexts)}::json) given(key)
    where not exists (
      select from send_recipients r
      where r.client_id = ${send.client_id} and r.send_id = ${send.send_id} and r.source_object_key = given.key)
    order by given.key limit ${MAX_FIELD_ERRORS}
  `.execute(trx);
  return rows.map((row) => ({
    path: `recipient_context.${row.key}`,
    message: 'is no active member of the list',
  }));
}

/** Members for whom {} would not do: the template's personal part has required fields. */
async function membersWithoutContext(
  trx: Trx,
  send: { client_id: number; send_id: string },
  missing: FieldError[],
): Promise<FieldError[]> {
  const rows = await trx
    .selectFrom('send_recipients')
    .select('source_object_key')
    .where('client_id', '=', send.client_id)
    .where('send_id', '=', send.send_id)
    .where('context', 'is', null)
    .orderBy('position')
    .limit(MAX_FIELD_ERRORS)
    .execute();
  const fields = missing.map((error) => error.path).join(', ');
  return rows.map((row) => ({
    path: `recipient_context.${row.source_object_key}`,
    message: `is required: the template needs ${fields}`,
  }));
}
