// When a message the server put off is tried again: by default after 1, 5, 15, 30 minutes, 1, 2, 4
// hours, then every 6 hours for 3 days; an urgent one begins at 10 seconds. Senders of RFC 5321, section 4.5.4.1, give
// up after 4-5 days; mail from applications is worthless before.

import type { RetrySchedule } from '../config.ts';

/**
 * Seconds until the next try of a message that has now been tried `attempts` times, not sooner than
 * `atLeast`; undefined where it would come after the window. Jitter of ±10 % comes from `seed`, not from chance: the members of
 * one chunk share a seed, so 500 deferred messages make one wake-up, not 500.
 */
export function nextDelay(
  schedule: RetrySchedule,
  {
    attempts,
    ageSeconds,
    urgent,
    atLeast = 0,
    seed,
  }: { attempts: number; ageSeconds: number; urgent: boolean; atLeast?: number; seed: number },
): number | undefined {
  const delays = urgent ? [...schedule.urgent, ...schedule.delays] : schedule.delays;
  const delay = delays[Math.min(attempts, delays.length) - 1] ?? delays.at(-1) ?? 0;
  const jittered = Math.max(delay, atLeast) * (0.9 + 0.2 * fraction(seed * 7919 + attempts));
  return ageSeconds + jittered > schedule.window ? undefined : jittered;
}

/** A number in [0, 1) that looks random and is the same for the same integer. */
function fraction(integer: number): number {
  const hashed = Math.imul(integer ^ 0x9e3779b9, 0x85ebca6b) >>> 0;
  return hashed / 2 ** 32;
}
