// Waiting for a condition, never for a time.

/** Of a machine that is busy with other things, too. */
const LONGEST_MS = 120_000;
/** Asked often at first, then less and less: asking takes time from what is waited for. */
const LONGEST_PAUSE_MS = 100;

/** Polls until `read` gives a value that is not undefined or false; fails after two minutes. */
export async function until<Value>(
  what: string,
  read: () => Promise<Value | undefined | false> | Value | undefined | false,
  timeoutMs = LONGEST_MS,
): Promise<Value> {
  const since = Date.now();
  for (;;) {
    const value = await read();
    if (value !== undefined && value !== false) return value;
    const waited = Date.now() - since;
    if (waited > timeoutMs) throw new Error(`waited ${timeoutMs} ms in vain for: ${what}`);
    const pause = Math.min(LONGEST_PAUSE_MS, 5 + waited / 20);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
