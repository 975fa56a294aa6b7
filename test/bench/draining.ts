// Measuring something while a large send drains: triggers it, lets the measurement run once mail flows,
// makes sure that it still flowed at the end, and cancels what is left.
import { until } from '../support/until.ts';
import type { Bench } from './context.ts';
import { shortPersonalOf, triggerOf } from './mailing.ts';

const UNDER_WAY = 1000;
const PATIENCE_MS = 600_000;

export interface Drained<Value> {
  value: Value;
  /** Mails per second meanwhile. */
  rate: number;
}

let sends = 0;

/** `work` gets the id of the send. @throws where the send ended before `work` did */
export async function whileDraining<Value>(
  { stage, options }: Bench,
  work: (sendId: string) => Promise<Value>,
): Promise<Drained<Value>> {
  await stage.fillList('large', options.large);
  const body = triggerOf(`draining:${++sends}`, options.large, shortPersonalOf);
  const path = '/api/recipient-lists/large/send';
  const { status, body: answer } = await stage.api('POST', path, body);
  if (status !== 202) throw new Error(JSON.stringify(answer));
  const { id } = answer.send;
  const sent = async () => {
    const { rows } = await stage.pool.query(
      'select coalesce(sum(sent), 0)::integer as sent from send_chunks where send_id = $1',
      [id],
    );
    return rows[0].sent as number;
  };
  try {
    const before = await until(
      'the send to be under way',
      async () => {
        const count = await sent();
        return count > Math.min(UNDER_WAY, options.large / 10) && count;
      },
      PATIENCE_MS,
    );
    const started = performance.now();
    const value = await work(id);
    const seconds = (performance.now() - started) / 1000;
    const after = await sent();
    if (after === options.large) throw new Error('the send ended too soon: it needs more members');
    return { value, rate: (after - before) / seconds };
  } finally {
    await stage.api('POST', `/api/sends/${id}/cancel`);
    await until('the rest to be cancelled', () => isSettled(stage, id), PATIENCE_MS);
  }
}

async function isSettled({ api }: Bench['stage'], id: string): Promise<boolean> {
  const { body } = await api('GET', `/api/sends/${id}`);
  return body.send.counts.queued === 0;
}
