// Collects what is to be written and writes it together; a caller waits until its own item is
// committed. A database that fails is tried again until it answers: what happened at a mail server
// must not be forgotten because nobody could write it down.
import type { Logger } from '../log.ts';

/** Written when a number of them wait, or this long after the first, whichever comes first. */
const LONGEST_WAIT_MS = 10;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;

export class BatchWriter<Item> {
  readonly #write: (items: readonly Item[]) => Promise<void>;
  readonly #log: Logger;
  readonly #most: number;
  #waiting: { item: Item; done: () => void }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(write: (items: readonly Item[]) => Promise<void>, log: Logger, most: number) {
    this.#write = write;
    this.#log = log;
    this.#most = most;
  }

  /** Resolves once the item is committed. */
  add(item: Item): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push({ item, done: resolve });
      if (this.#waiting.length >= this.#most) void this.#flush();
      else this.#timer ??= setTimeout(() => void this.#flush(), LONGEST_WAIT_MS);
    });
  }

  async #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const batch = this.#waiting;
    this.#waiting = [];
    await untilAnswered(
      () => this.#write(batch.map(({ item }) => item)),
      (error) => this.#log.error({ error, outcomes: batch.length }, 'outcomes not recorded yet'),
    );
    for (const { done } of batch) done();
  }
}

/** Asks until the database answers; `failed` is told of each time it did not. */
export async function untilAnswered<Result>(
  ask: () => Promise<Result>,
  failed: (error: string) => void,
): Promise<Result> {
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    try {
      return await ask();
    } catch (error) {
      failed((error as Error).message);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}
