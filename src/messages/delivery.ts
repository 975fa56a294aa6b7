// What the delivery of messages works with: the worker's identity, its mail connections, its
// recorder, the templates and the clock of retries. Made once per worker process.
import type { CallbackPolicy } from '../callback/post.ts';
import type { RetrySchedule } from '../config.ts';
import type { Database } from '../database/connect.ts';
import type { OnUnknown } from '../database/schema.ts';
import type { Logger } from '../log.ts';
import type { SenderRule } from '../smtp/choices.ts';
import { Place, type Transports } from '../smtp/transports.ts';
import type { Linker } from '../recipients/links.ts';
import type { Templates } from '../templates/registry.ts';
import type { BatchWriter } from './batch-writer.ts';
import type { MessageOutcome } from './record.ts';
import { nextDelay } from './retry.ts';
import type { SendComposers } from './send-composer.ts';
import type { SingleOutcome } from './record-single.ts';
import type { Turns } from './turns.ts';
import type { Outcome } from '../smtp/signal.ts';

export interface Delivery {
  db: Database;
  log: Logger;
  /** Our row in `workers`. */
  worker: number;
  templates: Templates;
  /** Makes the links of recipients. */
  linker: Linker;
  outcomes: BatchWriter<MessageOutcome>;
  singleOutcomes: BatchWriter<SingleOutcome>;
  retry: RetrySchedule;
  /** Mail connections of each lane: urgent mail never waits for a place that bulk mail holds. */
  bulk: Transports;
  urgent: Transports;
  singles: Transports;
  turns: Turns;
  /** Make the messages of list mail. */
  composers: SendComposers;
  /** Days that messages are kept; for ever where undefined. */
  retentionDays: number | undefined;
  /** Which URLs may be asked for contexts, and how long. */
  callback: CallbackPolicy;
  /** Chunks that this process delivers right now: a doubled job leaves them alone. */
  chunksInHand: Set<string>;
  /** Once aborted nothing more is claimed; what is in hand is finished. */
  stopping: AbortSignal;
}

/**
 * Decides whether a message gets another try, with its delay in seconds. A deferred one fails where the
 * retry window or the send ends first; an unknown one stays unknown. A held one, which no server has judged, waits
 * for `waitSeconds`, however old it is.
 */
export function scheduleRetry(
  outcome: Outcome,
  schedule: RetrySchedule,
  message: {
    attempts: number;
    age_seconds: number;
    was_unknown: boolean;
    expires_in_seconds?: number | null;
  },
  {
    urgent,
    seed,
    onUnknown,
    waitSeconds,
  }: { urgent: boolean; seed: number; onUnknown: OnUnknown; waitSeconds: number },
): { outcome: Outcome; retryIn?: number } {
  if (outcome.kind === 'held') return { outcome, retryIn: waitSeconds };
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
  const expiresIn = message.expires_in_seconds ?? Infinity;
  if (retryIn !== undefined && retryIn < expiresIn) return { outcome, retryIn };
  if (outcome.kind === 'unknown') return { outcome };
  return { outcome: { kind: 'failed', reason: 'expired', reply: outcome.reply, suppress: false } };
}

/** What one claim found, for as many places. */
export interface Claimed<Message> {
  claimed: Message[];
  skipped: number;
}

/**
 * Claims and delivers until nothing is due or the worker stops, as many at once as there are places at
 * the mail servers; resolves when everything claimed is recorded. `deliver` releases its place itself.
 * Without `sender` a claim is for the senders of its rule; `total` ends it after so many messages.
 * @returns seconds until it is worth coming back, where a mail server takes nothing now
 */
export async function deliverWhileDue<Message>(
  { stopping }: Delivery,
  transports: Transports,
  { sender, most, total = Infinity }: { sender?: string; most: number; total?: number },
  claim: (places: number, rule: SenderRule) => Promise<Claimed<Message>>,
  deliver: (message: Message, place: Place) => Promise<void>,
): Promise<number | undefined> {
  const inHand = new Set<Promise<void>>();
  const drained = new Set<string>();
  let left = total;
  try {
    while (!stopping.aborted && left > 0) {
      const reserved = await transports.reserve({
        ...(sender !== undefined && { sender }),
        most: Math.min(most, left),
        except: drained,
      });
      const { places, rule, choice, waitSeconds } = reserved;
      if (places.length === 0) return waitSeconds;
      const { claimed, skipped } = await claimFor(places, () => claim(places.length, rule));
      left -= claimed.length + skipped;
      for (const [index, message] of claimed.entries()) {
        const done = deliver(message, places[index]!).finally(() => inHand.delete(done));
        done.catch(() => undefined); // it is met below
        inHand.add(done);
      }
      if (claimed.length + skipped < places.length) {
        if (sender !== undefined) return undefined;
        drained.add(choice);
      }
    }
    return undefined;
  } finally {
    await Promise.all(inHand);
  }
}

/** Gives the places back that found no message. */
async function claimFor<Message>(
  places: Place[],
  claim: () => Promise<Claimed<Message>>,
): Promise<Claimed<Message>> {
  let used = 0;
  try {
    const found = await claim();
    used = found.claimed.length;
    return found;
  } finally {
    Place.releaseAll(places.slice(used));
  }
}
