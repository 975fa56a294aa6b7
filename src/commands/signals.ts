// SIGTERM and SIGINT: the first asks for an orderly end, a second one hurries it, a third one does not
// wait.
import { Fenced } from '../worker/liveness.ts';
import type { Worker } from '../worker/worker.ts';

/** Waits for a signal, or for the worker to end by itself; then lets it finish what is in hand. */
export async function runUntilSignal(worker: Worker): Promise<void> {
  try {
    const { hurry } = await untilSignal(worker.ended);
    await worker.stop(hurry);
  } catch (error) {
    // A fenced worker has nothing in hand any more: others have settled it.
    if (!(error instanceof Fenced)) await worker.stop();
    throw error;
  }
}

/**
 * Resolves at the first signal, or rejects when `running` does. The signal it gives is aborted by the
 * second; a third ends the process with exit code 1: other workers then settle what was in hand.
 */
export async function untilSignal(running?: Promise<unknown>): Promise<{ hurry: AbortSignal }> {
  const hurry = new AbortController();
  const asked = new Promise<void>((resolve) => {
    let count = 0;
    const onSignal = () => {
      count += 1;
      if (count === 1) resolve();
      else if (count === 2) hurry.abort();
      else process.exit(1);
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    // Whoever started us through a channel is gone.
    process.once('disconnect', onSignal);
    process.channel?.unref();
  });
  await Promise.race(running ? [asked, running] : [asked]);
  return { hurry: hurry.signal };
}
