// Senders: the From identities of a client. The first one is the default; making another the
// default takes it from the one before. Sends copy what they use, so a change touches no send.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database, Trx } from '../database/connect.ts';
import { violates } from '../database/failures.ts';
import { DomainError, invalid, notFound } from '../errors.ts';
import { address, line } from '../fields.ts';
import { page, type Page, type PageRequest } from '../paging.ts';

export const SenderInput = v.strictObject({
  email: address(),
  name: v.optional(v.nullable(line(200))),
  reply_to: v.optional(v.nullable(address())),
  default: v.optional(v.boolean()),
});
export type SenderInput = v.InferOutput<typeof SenderInput>;

export interface Sender {
  id: string;
  email: string;
  name: string | null;
  reply_to: string | null;
  is_default: boolean;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = [
  'id',
  'email',
  'name',
  'reply_to',
  'is_default',
  'created_at',
  'updated_at',
] as const;

/** An absent name, reply_to or default stays as it is. @throws validation_failed */
export async function putSender(
  trx: Trx,
  clientId: number,
  id: string,
  input: SenderInput,
): Promise<{ sender: Sender; created: boolean }> {
  const present = await lockSenders(trx, clientId);
  const existing = present.find((sender) => sender.id === id);
  const mustBeDefault = existing?.is_default ?? present.length === 0;
  if (input.default === false && mustBeDefault) {
    const message = 'must be true: a client has one default sender; set it on another to move it';
    throw invalid([{ path: 'default', message }]);
  }
  const isDefault = mustBeDefault || (input.default ?? false);
  if (isDefault) {
    await trx
      .updateTable('senders')
      .set({ is_default: false })
      .where('client_id', '=', clientId)
      .where('is_default', '=', true)
      .execute();
  }
  const values = {
    email: input.email.given,
    name: input.name === undefined ? (existing?.name ?? null) : input.name,
    reply_to:
      input.reply_to === undefined ? (existing?.reply_to ?? null) : (input.reply_to?.given ?? null),
    is_default: isDefault,
  };
  const sender = await trx
    .insertInto('senders')
    .values({ client_id: clientId, id, ...values })
    .onConflict((conflict) =>
      conflict.columns(['client_id', 'id']).doUpdateSet({ ...values, updated_at: sql`now()` }),
    )
    .returning(COLUMNS)
    .executeTakeFirstOrThrow();
  return { sender, created: !existing };
}

/** The client's senders, oldest first; its row lock puts writers of senders in a queue. */
async function lockSenders(trx: Trx, clientId: number): Promise<Sender[]> {
  await trx
    .selectFrom('clients')
    .select('id')
    .where('id', '=', clientId)
    .forNoKeyUpdate()
    .execute();
  return trx
    .selectFrom('senders')
    .select(COLUMNS)
    .where('client_id', '=', clientId)
    .orderBy('created_at')
    .orderBy('id')
    .execute();
}

export function listSenders(
  db: Database,
  clientId: number,
  request: PageRequest,
): Promise<Page<Sender>> {
  const query = db.selectFrom('senders').select(COLUMNS).where('client_id', '=', clientId);
  return page(
    request,
    [v.string()],
    (sender) => [sender.id],
    (after, limit) =>
      query
        .$if(after !== undefined, (narrowed) => narrowed.where('id', '>', after![0]))
        .orderBy('id')
        .limit(limit)
        .execute(),
  );
}

/** Where the default goes, the oldest of the others becomes it. @throws not_found, sender_in_use */
export async function deleteSender(trx: Trx, clientId: number, id: string): Promise<void> {
  const present = await lockSenders(trx, clientId);
  const doomed = present.find((sender) => sender.id === id);
  if (!doomed) throw notFound(`The sender "${id}"`);
  await trx
    .deleteFrom('senders')
    .where('client_id', '=', clientId)
    .where('id', '=', id)
    .execute()
    .catch((error: unknown) => {
      throw violates(error, 'email_type_sender_exists')
        ? new DomainError('sender_in_use', `An email type uses the sender "${id}".`)
        : error;
    });
  const heir = present.find((sender) => sender.id !== id);
  if (!doomed.is_default || !heir) return;
  await trx
    .updateTable('senders')
    .set({ is_default: true, updated_at: sql`now()` })
    .where('client_id', '=', clientId)
    .where('id', '=', heir.id)
    .execute();
}

/**
 * The sender a send is to use: the named one, or the default.
 * @throws sender_not_found, no_default_sender
 */
export async function resolveSender(
  db: Database,
  clientId: number,
  id: string | undefined,
): Promise<Sender> {
  const query = db.selectFrom('senders').select(COLUMNS).where('client_id', '=', clientId);
  const sender = await (
    id === undefined ? query.where('is_default', '=', true) : query.where('id', '=', id)
  ).executeTakeFirst();
  if (sender) return sender;
  if (id !== undefined) {
    throw new DomainError(
      'sender_not_found',
      `The sender "${id}" does not exist; make it with PUT /api/senders/{id}.`,
    );
  }
  throw new DomainError(
    'no_default_sender',
    'The client has no sender yet; make one with PUT /api/senders/{id}.',
  );
}
