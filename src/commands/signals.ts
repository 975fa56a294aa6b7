// SIGTERM and SIGINT: the first asks for an orderly end, a second one does not wait for it.

/**
 * Resolves at the first signal, or rejects when `running` does. A further signal ends the process
 * with exit code 1: what was in hand is then settled by the other workers.
 */
export async function untilSignal(running?: Promise<unknown>): Promise<void> {
  const asked = new Promise<void>((resolve) => {
    let count = 0;
    const onSignal = () => {
      count += 1;
      if (count === 1) resolve();
      else process.exit(1);
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
  });
  await Promise.race(running ? [asked, running] : [asked]);
}
