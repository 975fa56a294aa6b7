// Task deliver_chunk: claim → render → SMTP → record, until nothing in the chunk is due. A claim takes
// no more messages than there are free mail connections, so what a crash leaves unknown is bounded
// by them. No transaction is open while a mail server is talked to.
import { sql } from 'kysely';
import type { ChunkRef } from '../queue.ts';
import { closingOf, type Closing } from '../sends/closing.ts';
import { closeChunk, settleChunk } from '../sends/complete.ts';
import { linkTo, unsubscribeHeader, type Linker } from '../recipients/links.ts';
import { compose, listIdOf, messageIdOf } from '../smtp/compose.ts';
import { outcomeFor, type Outcome } from '../smtp/signal.ts';
import type { Place } from '../smtp/transports.ts';
import { envelopeAddress } from '../address.ts';
import type { Template } from '../templates/registry.ts';
import { renderTemplate } from '../templates/render.ts';
import { untilAnswered } from './batch-writer.ts';
import {
  claimFromChunk,
  leaseChunk,
  waitForClaims,
  type Chunk,
  type ClaimedMessage,
} from './claim.ts';
import { deliverWhileDue, scheduleRetry, type Delivery } from './delivery.ts';
import type { JsonObject, OnUnknown } from '../database/schema.ts';

/** Messages of one claim at most: more would only wait for the next free connection. */
const MOST_PER_CLAIM = 25;
/** How long a chunk waits for a worker that has its template's version. */
const TEMPLATE_WAIT_SECONDS = 60;

/** The frozen part of a send that its messages are made of. */
interface FrozenSend {
  client_id: number;
  client_key: string;
  list_id: number;
  list_key: string;
  list_name: string | null;
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

export async function deliverChunk(delivery: Delivery, ref: ChunkRef): Promise<void> {
  const send = await readFrozenSend(delivery, ref);
  const template = send && delivery.templates.get(send.template_key);
  if (!send) return;
  const { db, log, worker, bulk, chunksInHand } = delivery;
  if (send.closing) return db.transaction().execute((trx) => closeChunk(trx, ref));
  if (template?.version !== send.template_version) return waitForTemplate(delivery, ref, send);
  const name = `${ref.send_id}:${ref.chunk_no}`;
  if (chunksInHand.has(name)) return;
  chunksInHand.add(name);
  try {
    const chunk = await leaseChunk(db, worker, ref);
    if (!chunk) return;
    const waitSeconds = await deliverWhileDue(
      delivery,
      bulk,
      { sender: send.sender_email, most: MOST_PER_CLAIM },
      (places) => claimFromChunk(db, worker, chunk, send, places),
      (message, place) => deliverMessage(delivery, chunk, send, template, message, place),
    );
    chunksInHand.delete(name);
    await db.transaction().execute((trx) => settleChunk(trx, chunk, worker, waitSeconds));
  } catch (error) {
    // The chunk must not stay with us: nobody else could deliver it.
    await untilAnswered(
      () =>
        db.transaction().execute(async (trx) => {
          await waitForClaims(trx, worker);
          await settleChunk(trx, ref, worker);
        }),
      (message) => log.error({ error: message, ...ref }, 'chunk not handed back yet'),
    );
    throw error;
  } finally {
    chunksInHand.delete(name);
  }
}

async function readFrozenSend({ db }: Delivery, ref: ChunkRef): Promise<FrozenSend | undefined> {
  return db
    .selectFrom('sends as s')
    .innerJoin('clients as c', 'c.id', 's.client_id')
    .innerJoin('recipient_lists as l', (join) =>
      join.onRef('l.client_id', '=', 's.client_id').onRef('l.id', '=', 's.list_id'),
    )
    .select([
      's.client_id',
      'c.key as client_key',
      'l.name as list_name',
      's.list_id',
      's.list_key',
    ])
    .select([
      's.requires_consent',
      's.on_unknown',
      's.template_key',
      's.template_version',
      's.shared_context',
    ])
    .select(['s.sender_email', 's.sender_name', 's.sender_reply_to'])
    .select([
      closingOf('s').as('closing'),
      sql<boolean>`s.callback_url is not null`.as('has_callback'),
    ])
    .where('s.client_id', '=', ref.client_id)
    .where('s.id', '=', ref.send_id)
    .executeTakeFirst();
}

/** A deployment is under way, or the template was changed: its mail must not change halfway. */
async function waitForTemplate(
  { db, log }: Delivery,
  ref: ChunkRef,
  send: FrozenSend,
): Promise<void> {
  log.warn(
    {
      send_id: ref.send_id,
      template_key: send.template_key,
      template_version: send.template_version,
    },
    'this worker does not have the template version of the send; its mail stays queued',
  );
  await sql`
    update send_chunks set next_attempt_at = now() + make_interval(secs => ${TEMPLATE_WAIT_SECONDS})
    where client_id = ${ref.client_id} and send_id = ${ref.send_id} and chunk_no = ${ref.chunk_no}
      and leased_by is null and completed_at is null
  `.execute(db);
}

async function deliverMessage(
  delivery: Delivery,
  chunk: Chunk,
  send: FrozenSend,
  template: Template,
  message: ClaimedMessage,
  place: Place,
): Promise<void> {
  try {
    const { outcome, waitSeconds } = await attempt(delivery, send, template, message, place);
    const scheduled = scheduleRetry(outcome, delivery.retry, message, {
      urgent: false,
      seed: chunk.chunk_no,
      onUnknown: send.on_unknown,
      waitSeconds,
    });
    await delivery.outcomes.add({ chunk, message_id: message.id, ...scheduled });
  } finally {
    // Not before it is recorded: a crash leaves no more unknown than there are places.
    place.release();
  }
}

async function attempt(
  { log, turns, linker }: Delivery,
  send: FrozenSend,
  template: Template,
  message: ClaimedMessage,
  place: Place,
): Promise<{ outcome: Outcome; waitSeconds: number }> {
  let raw: Buffer;
  try {
    raw = await turns.next(() => composeMessage(linker, send, template, message));
  } catch (error) {
    log.error(
      { message_id: message.id, template_key: template.key, error: (error as Error).message },
      'not rendered',
    );
    const reply = 'the template could not be rendered';
    return {
      outcome: { kind: 'failed', reason: 'render_failed', reply, suppress: false },
      waitSeconds: 0,
    };
  }
  const to = envelopeAddress(message.email_given);
  const { signal, waitSeconds } = await place.send({ sender: send.sender_email, to: [to], raw });
  return { outcome: outcomeFor(signal, to), waitSeconds };
}

/** What needs consent can be stopped by the recipient: the headers, and the link for the template. */
async function composeMessage(
  linker: Linker,
  send: FrozenSend,
  template: Template,
  message: ClaimedMessage,
): Promise<Buffer> {
  const { client_id, list_id } = send;
  const about = { client_id, list_id, contact_id: message.contact_id };
  const leave = send.requires_consent ? ({ purpose: 'unsubscribe', ...about } as const) : undefined;
  return compose({
    messageId: messageIdOf(message.id, send.sender_email),
    date: message.claimed_at,
    from: { name: send.sender_name, address: send.sender_email },
    replyTo: send.sender_reply_to,
    to: [{ name: message.name, address: message.email_given }],
    content: await renderTemplate(template, {
      shared: send.shared_context,
      recipient: message.context,
      links: {
        ...(leave && { unsubscribe: linkTo(linker, leave) }),
        ...(template.shows.confirm && {
          confirm: linkTo(linker, { purpose: 'confirm', ...about }),
        }),
      },
    }),
    listId: listIdOf(send.list_key, send.client_key, send.sender_email),
    ...(leave && { unsubscribe: unsubscribeHeader(linker, leave) }),
  });
}
