// Whose turn it is on the event loop. Rendering takes it for milliseconds at a time, and an urgent mail
// needs it some twenty times between its job and the mail server's answer: without turns it waited for
// twenty renderings and more. Bulk mail is composed one message at a time, gives way to I/O every
// millisecond, and waits while urgent mail is in hand.
import { setImmediate as afterIo } from 'node:timers/promises';

/** A slow mail server must not hold up bulk mail for long. */
const LONGEST_WAIT_MS = 100;
/** Going through I/O after each message would cost as much as composing it. */
const AT_A_STRETCH_MS = 1;

export class Turns {
  #last: Promise<unknown> = Promise.resolve();
  #sinceIo = 0;
  #urgentInHand = 0;
  #clear = Promise.withResolvers<void>();

  /** Urgent work begins; to be called back, more than once if need be, when it ends. */
  takeFirst(): () => void {
    let inHand = true;
    this.#urgentInHand += 1;
    return () => {
      if (!inHand) return;
      inHand = false;
      this.#urgentInHand -= 1;
      if (this.#urgentInHand > 0) return;
      this.#clear.resolve();
      this.#clear = Promise.withResolvers<void>();
    };
  }

  /** Runs work after what was given before it, and after urgent work. */
  next<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#last.then(async () => {
      if (performance.now() - this.#sinceIo > AT_A_STRETCH_MS) {
        await afterIo();
        this.#sinceIo = performance.now();
      }
      if (this.#urgentInHand > 0) await this.#untilClear();
      return work();
    });
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #untilClear(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, LONGEST_WAIT_MS);
    await Promise.race([this.#clear.promise, promise]);
    clearTimeout(timer);
  }
}
