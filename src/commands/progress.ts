// Progress of a send in the terminal: one line that is redrawn, or a line per change where the
// output is not a terminal.
import type { Counts, Send } from '../sends/sends.ts';

const WIDTH = 32;

/** `intended 1000 = queued 0 + sent 985 + failed 0 + skipped 15 + unknown 0` */
export function countsLine({ intended, queued, sent, failed, skipped, unknown }: Counts): string {
  return `intended ${intended} = queued ${queued} + sent ${sent} + failed ${failed} + skipped ${skipped} + unknown ${unknown}`;
}

/** `████████░░░░ 62 %  intended …` */
export function progressLine({ counts, state }: Pick<Send, 'counts' | 'state'>): string {
  const settled = counts.intended - counts.queued;
  const share = counts.intended === 0 ? (state === 'completed' ? 1 : 0) : settled / counts.intended;
  return `${progressBar(share)}  ${countsLine(counts)}`;
}

/** `████████░░░░ 62 %`, of a share from 0 to 1. */
export function progressBar(share: number): string {
  const full = Math.floor(share * WIDTH);
  const bar = '█'.repeat(full) + '░'.repeat(WIDTH - full);
  return `${bar} ${String(Math.floor(share * 100)).padStart(3)} %`;
}

/**
 * Draws the send until it is completed or cancelled with nothing queued, asking every 200 ms;
 * returns its last state.
 */
export async function watchSend(
  read: () => Promise<Send>,
  out: NodeJS.WriteStream = process.stdout,
): Promise<Send> {
  let last = '';
  for (;;) {
    const send = await read();
    const line = progressLine(send);
    if (line !== last) out.write(out.isTTY ? `\r\u001b[2K${line}` : `${line}\n`);
    last = line;
    if (send.completed_at) {
      if (out.isTTY) out.write('\n');
      return send;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
