// The frozen members of a send: the list's active members at one instant of the trigger, with the
// contexts that came along. A context that belongs to no member, or a member without one that the template
// needs, refuses the trigger.
import { sql } from 'kysely';
import type { Trx } from '../database/connect.ts';
import type { JsonObject } from '../database/schema.ts';
import { invalid, MAX_FIELD_ERRORS, type FieldError } from '../errors.ts';
import type { SendRef } from '../queue.ts';
import { contextErrors, type Template } from '../templates/registry.ts';

export type Contexts = Record<string, JsonObject>;

/** One INSERT … SELECT at one instant: the snapshot is the list as that statement sees it. */
export async function snapshotMembers(
  trx: Trx,
  send: SendRef,
  listId: number,
  template: Template,
  contexts: Contexts | 'fetched later' | undefined,
): Promise<void> {
  const inline = contexts === 'fetched later' ? undefined : contexts;
  const personal = inline
    ? {
        value: sql`p.value`,
        join: sql`left join json_each(${JSON.stringify(inline)}::json) p on p.key = m.source_object_key`,
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
  if (inline && with_context < Object.keys(inline).length) {
    throw invalid(await strayContexts(trx, send, inline));
  }
  if (contexts === 'fetched later') return;
  const missing = contextErrors(template.recipientSchema, {}, '');
  if (with_context < members && missing.length > 0) {
    throw invalid(await membersWithoutContext(trx, send, missing));
  }
}

async function strayContexts(trx: Trx, send: SendRef, contexts: Contexts): Promise<FieldError[]> {
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
  send: SendRef,
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
