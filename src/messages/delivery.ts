// What the delivery of messages works with: the worker's identity, its mail connections, its
// recorder, the templates and the clock of retries. Made once per worker process.
import type { RetrySchedule } from '../config.ts';
import type { Database } from '../database/connect.ts';
import type { OnUnknown } from '../database/schema.ts';
import type { Logger } from '../log.ts';
import type { SmtpPool } from '../smtp/transport.ts';
import type { Templates } from '../templates/registry.ts';
import type { BatchWriter } from './batch-writer.ts';
import type { MessageOutcome } from './record.ts';
import { nextDelay } from './retry.ts';
import type { SingleOutcome } from './single.ts';
import type { Turns } from './turns.ts';
import type { Outcome } from '../smtp/signal.ts';

export interface Delivery {
  db: Database;
  log: Logger;
  /** Our row in `workers`. */
  worker: number;
  templates: Templates;
  outcomes: BatchWriter<MessageOutcome>;
  singleOutcomes: BatchWriter<SingleOutcome>;
  retry: RetrySchedule;
  /** Mail connections of each lane: urgent mail never waits for a place that bulk mail holds. */
  bulk: SmtpPool;
  urgent: SmtpPool;
  singles: SmtpPool;
  turns: Turns;
  /** Chunks that this process delivers right now: a doubled job leaves them alone. */
  chunksInHand: Set<string>;
  /** Once aborted nothing more is claimed; what is in hand is finished. */
  stopping: AbortSignal;
}

/**
 * Decides whether a message gets another try, with its delay in seconds. A deferred one fails where the
 * retry window ends first; an unknown one stays unknown.
 */
export function scheduleRetry(
  outcome: Outcome,
  schedule: RetrySchedule,
  message: { attempts: number; age_seconds: number; was_unknown: boolean },
  { urgent, seed, onUnknown }: { urgent: boolean; seed: number; onUnknown: OnUnknown },
): { outcome: Outcome; retryIn?: number } {
  // Once more, not for ever: a relay that drops after every final dot must not make a mail loop.
  const again = outcome.kind === 'unknown' && onUnknown === 'retry' && !message.was_unknown;
  if (outcome.kind !== 'deferred' && !again) return { outcome };
  const retryIn = nextDelay(schedule, {
    attempts: message.attempts + 1,
    ageSeconds: message.age_seconds,
    urgent,
    atLeast: outcome.reason === 'deferred_by_server' && !urgent ? schedule.greylist : 0,
    seed,
  });
  if (retryIn !== undefined) return { outcome, retryIn };
  if (outcome.kind === 'unknown') return { outcome };
  return { outcome: { kind: 'failed', reason: 'expired', reply: outcome.reply, suppress: false } };
}

/**
 * Claims as many messages as the pool has free places, at most `most`, and gives back the places that
 * found none. `drained` says that nothing more is due, or that the pool is closed.
 */
export async function claimForPool<Message>(
  pool: SmtpPool,
  most: number,
  claim: (places: number) => Promise<{ claimed: Message[]; skipped: number }>,
): Promise<{ claimed: Message[]; skipped: number; drained: boolean }> {
  const places = await pool.reserve(most);
  if (places === 0) return { claimed: [], skipped: 0, drained: true };
  try {
    const { claimed, skipped } = await claim(places);
    pool.release(places - claimed.length);
    return { claimed, skipped, drained: claimed.length + skipped < places };
  } catch (error) {
    pool.release(places);
    throw error;
  }
}

/**
 * Claims and delivers until nothing is due or the worker stops, as many at once as the pool has
 * places; resolves when everything claimed is recorded. `deliver` gives its place back itself.
 */
export async function deliverWhileDue<Message>(
  { stopping }: Delivery,
  pool: SmtpPool,
  most: number,
  claim: (places: number) => Promise<{ claimed: Message[]; skipped: number }>,
  deliver: (message: Message) => Promise<void>,
): Promise<void> {
  const inHand = new Set<Promise<void>>();
  try {
    while (!stopping.aborted) {
      const { claimed, drained } = await claimForPool(pool, most, claim);
      for (const message of claimed) {
        const done = deliver(message).finally(() => inHand.delete(done));
        inHand.add(done);
      }
      if (drained) break;
    }
  } finally {
    await Promise.all(inHand);
  }
}
