// The process of a reference: is told how many mails to send, says how long it took and how many had
// been sent after each quarter of a second. One task at a time.
import { TICK_SECONDS } from '../plot.ts';

export interface Reference {
  /** Resolves when all are accepted; calls `sent` for each. */
  send(count: number, sent: () => void): Promise<void>;
}

export interface Task {
  count: number;
}

export interface Answer {
  seconds: number;
  /** Mails in each quarter of a second. */
  ticks: number[];
}

export function serveReference(reference: Reference): void {
  process.on('message', ({ count }: Task) => {
    answer(reference, count).then(
      (told) => process.send!(told),
      (error: Error) => process.send!({ error: error.stack ?? error.message }),
    );
  });
  process.once('disconnect', () => process.exit(0));
}

async function answer(reference: Reference, count: number): Promise<Answer> {
  const ticks: number[] = [];
  const started = performance.now();
  await reference.send(count, () => {
    const tick = Math.floor((performance.now() - started) / 1000 / TICK_SECONDS);
    while (ticks.length <= tick) ticks.push(0);
    ticks[tick]! += 1;
  });
  const seconds = (performance.now() - started) / 1000;
  return { seconds, ticks };
}

/** Calls `work` for 1 to `count`, as many at once as there are lanes. */
export async function inLanes(
  count: number,
  lanes: number,
  work: (n: number, lane: number) => Promise<void>,
): Promise<void> {
  let next = 1;
  const run = async (_: unknown, lane: number) => {
    while (next <= count) await work(next++, lane);
  };
  await Promise.all(Array.from({ length: lanes }, run));
}

/** Host and port of the mail server. */
export function sinkOptions() {
  const { hostname, port } = new URL(process.env.SMTP_URL!);
  return { host: hostname, port: Number(port), secure: false, ignoreTLS: true };
}
