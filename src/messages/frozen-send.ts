// What a send was when it was triggered: all its messages are made of it, whatever has changed since.
import { sql } from 'kysely';
import type { Database } from '../database/connect.ts';
import type { JsonObject, OnUnknown } from '../database/schema.ts';
import type { SendRef } from '../queue.ts';
import { closingOf, type Closing } from '../sends/closing.ts';

export interface FrozenSend {
  client_id: number;
  client_key: string;
  id: string;
  list_id: number;
  list_key: string;
  requires_consent: boolean;
  has_callback: boolean;
  closing: Closing | null;
  on_unknown: OnUnknown;
  template_key: string;
  template_version: string;
  sender_email: string;
  sender_name: string | null;
  sender_reply_to: string | null;
  shared_context: JsonObject;
}

export async function readFrozenSend(
  db: Database,
  { client_id, send_id }: SendRef,
): Promise<FrozenSend | undefined> {
  return db
    .selectFrom('sends as s')
    .innerJoin('clients as c', 'c.id', 's.client_id')
    .select(['s.client_id', 'c.key as client_key', 's.id', 's.list_id', 's.list_key'])
    .select(['s.requires_consent', 's.on_unknown', 's.template_key', 's.template_version'])
    .select(['s.shared_context', 's.sender_email', 's.sender_name', 's.sender_reply_to'])
    .select([
      closingOf('s').as('closing'),
      sql<boolean>`s.callback_url is not null`.as('has_callback'),
    ])
    .where('s.client_id', '=', client_id)
    .where('s.id', '=', send_id)
    .executeTakeFirst();
}
