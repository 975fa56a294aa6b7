// How long a priority-1 mail takes from its 201 to its acceptance at the mail server: idle, and while a
// large list send drains, side by side in one run. `npm run bench:urgent`.
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { queueEmail } from '../support/emails.ts';
import { scoreSend } from '../support/harness.ts';
import { startWorkerProcess } from '../support/processes.ts';
import { until } from '../support/until.ts';
import { openStage } from './stage.ts';

const MAILS = 50;
const MEMBERS = 50_000;
const TARGET = 5;

const stage = await openStage();
const arrivals = new EventTarget();
stage.sink.onBody = ({ to }) => void arrivals.dispatchEvent(new Event(to[0]!));
await stage.api('PUT', '/api/v1/email-types/urgent', { from_email: 'courses' });
await stage.fillList('large', MEMBERS);
const worker = startWorkerProcess({ DATABASE_URL: stage.databaseUrl, SMTP_URL: stage.sink.url });

await measure('warm-up');
const idle = await measure('idle');
const { body } = await stage.api('POST', '/api/recipient-lists/large/send', scoreSend());
await until('the send to be under way', () => stage.sink.accepted.length > 1000);
const before = stage.sink.accepted.length;
const started = performance.now();
const draining = await measure('draining');
const rate = ((stage.sink.accepted.length - before) * 1000) / (performance.now() - started);
const { body: after } = await stage.api('GET', `/api/sends/${body.send.id}`);

const ms = (value: number) => `${value.toFixed(1)} ms`;
const row = (name: string, times: number[]) =>
  console.log(`${name.padEnd(28)} median ${ms(at(times, 0.5))}, p99 ${ms(at(times, 0.99))}`);
console.log(`priority-1 mails, 201 to accepted, ${MAILS} each, one after another`);
row('idle', idle);
row(`while ${MEMBERS} drain`, draining);
const [median, p99] = [0.5, 0.99].map((share) => at(draining, share) / at(idle, share));
console.log(
  `ratio to idle: median ${median!.toFixed(1)}, p99 ${p99!.toFixed(1)} (target ${TARGET})`,
);
console.log(`meanwhile ${rate.toFixed(0)} mails/s; ${after.send.counts.queued} still queued`);
await worker.stop();
await stage.close();

async function measure(name: string): Promise<number[]> {
  const times: number[] = [];
  for (let n = 0; n < MAILS; n++) {
    const address = `${name}-${n}@urgent.example`;
    const arrival = once(arrivals, address).then(() => performance.now());
    const { status, body } = await queueEmail(stage, stage.key, {
      email_type: 'urgent',
      subject: 'Your code',
      email_template: 'default_template',
      email_data: '{"code": "123456"}',
      to_address: [address],
      priority_level: '1',
    });
    if (status !== 201) throw new Error(`answered ${status}: ${body.message}`);
    const queued = performance.now();
    times.push(Math.max(0, (await arrival) - queued));
    await pause(50);
  }
  return times.sort((a, b) => a - b);
}

function at(sorted: number[], share: number): number {
  return sorted[Math.ceil(share * sorted.length) - 1]!;
}
