// The one logger: JSON lines on stderr, so that stdout stays free for command output. Never given
// addresses, names, contexts, keys or message bodies; ids and counts are enough to find the rows.
import pino, { type Logger } from 'pino';

export type { Logger };

export function createLogger(level: string): Logger {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ fd: 2, sync: true }),
  );
}
