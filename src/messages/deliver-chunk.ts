// Task deliver_chunk: claim → compose → SMTP → record, until nothing in the chunk is due. A claim takes
// no more messages than there are free mail connections, so what a crash leaves unknown is bounded
// by them. No transaction is open while a mail server is talked to.
import { sql } from 'kysely';
import type { ChunkRef } from '../queue.ts';
import { closeChunk, settleChunk } from '../sends/complete.ts';
import { outcomeFor, type Outcome } from '../smtp/signal.ts';
import type { Place } from '../smtp/transports.ts';
import { envelopeAddress } from '../address.ts';
import { untilAnswered } from './batch-writer.ts';
import {
  claimFromChunk,
  leaseChunk,
  MOST_PER_CLAIM,
  waitForClaims,
  type Chunk,
  type ClaimedMessage,
} from './claim.ts';
import { deliverWhileDue, scheduleRetry, type Delivery } from './delivery.ts';
import { readFrozenSend, type FrozenSend } from './frozen-send.ts';
import type { SendComposer } from './send-composer.ts';

/** How long a chunk waits for a worker that has its template's version. */
const TEMPLATE_WAIT_SECONDS = 60;

export async function deliverChunk(delivery: Delivery, ref: ChunkRef): Promise<void> {
  const { db, log, worker, templates, composers, bulk, chunksInHand } = delivery;
  const send = await readFrozenSend(db, ref);
  if (!send) return;
  const template = templates.get(send.template_key);
  if (send.closing) return db.transaction().execute((trx) => closeChunk(trx, ref));
  if (template?.version !== send.template_version) return waitForTemplate(delivery, ref, send);
  const name = `${ref.send_id}:${ref.chunk_no}`;
  if (chunksInHand.has(name)) return;
  chunksInHand.add(name);
  try {
    const chunk = await leaseChunk(db, worker, ref);
    if (!chunk) return;
    const composer = composers.of(send, template);
    const waitSeconds = await deliverWhileDue(
      delivery,
      bulk,
      { sender: send.sender_email, most: MOST_PER_CLAIM },
      (places) => claimFromChunk(db, worker, chunk, send, places),
      (message, place) => deliverMessage(delivery, chunk, send, composer, message, place),
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
  composer: SendComposer,
  message: ClaimedMessage,
  place: Place,
): Promise<void> {
  try {
    const { outcome, waitSeconds } = await attempt(delivery, send, composer, message, place);
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
  { log }: Delivery,
  send: FrozenSend,
  composer: SendComposer,
  message: ClaimedMessage,
  place: Place,
): Promise<{ outcome: Outcome; waitSeconds: number }> {
  let raw: Buffer;
  try {
    raw = await composer.compose(message);
  } catch (error) {
    log.error(
      { message_id: message.id, template_key: send.template_key, error: (error as Error).message },
      'not rendered',
    );
    const reply = 'the template could not be rendered';
    return {
      outcome: { kind: 'failed', reason: 'render_failed', reply, suppress: false },
      waitSeconds: 0,
    };
  }
  const to = envelopeAddress(message.email_given);
  const { signal, waitSeconds } = await place.send({
    sender: send.sender_email,
    to: [to],
    raw,
    isTransparent: true,
  });
  return { outcome: outcomeFor(signal, to), waitSeconds };
}
