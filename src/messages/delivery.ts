// What the delivery of messages works with: the worker's identity, its mail connections, its
// recorder, the templates and the clock of retries. Made once per worker process.
import type { Database } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import type { SmtpPool } from '../smtp/transport.ts';
import type { Templates } from '../templates/registry.ts';
import type { OutcomeRecorder } from './record.ts';
import { nextDelay, type RetrySchedule } from './retry.ts';
import type { Outcome } from '../smtp/signal.ts';

export interface Delivery {
  db: Database;
  log: Logger;
  /** Our row in `workers`. */
  worker: number;
  templates: Templates;
  recorder: OutcomeRecorder;
  retry: RetrySchedule;
  /** Connections of the bulk lane and of the urgent lane: urgent mail never waits for a place. */
  bulk: SmtpPool;
  urgent: SmtpPool;
  /** Once aborted nothing more is claimed; what is in hand is finished. */
  stopping: AbortSignal;
}

/**
 * Decides whether a deferred message gets another try: with its delay in seconds, or as failed where
 * the retry window ends first.
 */
export function scheduleRetry(
  outcome: Outcome,
  schedule: RetrySchedule,
  message: { attempts: number; age_seconds: number },
  { urgent, seed }: { urgent: boolean; seed: number },
): { outcome: Outcome; retryIn?: number } {
  if (outcome.kind !== 'deferred') return { outcome };
  const retryIn = nextDelay(schedule, {
    attempts: message.attempts + 1,
    ageSeconds: message.age_seconds,
    urgent,
    seed,
  });
  if (retryIn !== undefined) return { outcome, retryIn };
  return { outcome: { kind: 'failed', reason: 'expired', reply: outcome.reply, suppress: false } };
}
