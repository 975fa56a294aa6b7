// How long a priority-1 mail takes from its 201 to the mail server's 250: idle, while a large send drains
// at a third of what the machine can do, and at all it can. Urgent mail goes to a mail server of its own,
// which tells when each arrived; list mail goes where it always does.
import { setTimeout as pause } from 'node:timers/promises';
import { queueEmail } from '../../support/emails.ts';
import { stopInTime } from '../../support/processes.ts';
import { until } from '../../support/until.ts';
import type { Bench } from '../context.ts';
import { whileDraining } from '../draining.ts';
import type { Found, Row } from '../report.ts';
import { startOwnSink, type Arrivals } from '../sink.ts';
import { median, percentile } from '../statistics.ts';
import { fastest, startWorkers } from '../workers.ts';

const MAILS = 200;
const PAUSE_MS = 20;
const SENDER = 'alerts@school.example';
const TARGETS = { p50: 3, p99: 5 };

export async function measureUrgent(bench: Bench): Promise<Found> {
  const { stage, sink } = bench;
  await stage.api('PUT', '/api/senders/alerts', { email: SENDER });
  await stage.api('PUT', '/api/v1/email-types/urgent', { from_email: 'alerts' });
  const arrivals: Arrivals = new Map();
  const own = await startOwnSink(arrivals);
  bench.started(own.process);
  const withWorkers = async <Value>(perSecond: number | undefined, work: () => Promise<Value>) => {
    const transports = [
      { name: 'alerts', url: own.url, senders: [SENDER] },
      {
        name: 'bulk',
        url: sink.url,
        senders: ['courses@school.example'],
        ...(perSecond && { messages_per_second: perSecond }),
      },
    ];
    const workers = await startWorkers(bench, { processes: fastest(bench), transports });
    try {
      await measure(bench, arrivals, MAILS / 4); // to warm up
      return await work();
    } finally {
      await workers.stop();
    }
  };
  const draining = () => whileDraining(bench, () => measure(bench, arrivals, MAILS));
  try {
    const [before, saturated] = await withWorkers(undefined, async () => [
      await measure(bench, arrivals, MAILS),
      await draining(),
    ]);
    const [after, limited] = await withWorkers(Math.ceil(saturated.rate / 3), async () => [
      await measure(bench, arrivals, MAILS),
      await draining(),
    ]);
    const idle = [...before, ...after];
    return {
      rows: [
        told('idle', idle),
        ...against(
          `while a send drains at ${limited.rate.toFixed(0)}/s`,
          limited.value,
          idle,
          true,
        ),
        ...against(`saturated, at ${saturated.rate.toFixed(0)}/s`, saturated.value, idle, false),
      ],
    };
  } finally {
    await stopInTime(own.process);
  }
}

function told(when: string, times: number[]): Row {
  return {
    measure: `priority-1 mail, 201 to 250, ${when}`,
    figure: `p50 ${median(times).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms`,
    runs: { ms: times },
  };
}

function against(when: string, times: number[], idle: number[], judged: boolean): Row[] {
  const ratios = {
    p50: median(times) / median(idle),
    p99: percentile(times, 0.99) / percentile(idle, 0.99),
  };
  const row = (name: 'p50' | 'p99'): Row => ({
    measure: `  over idle, ${name}`,
    figure: `${ratios[name].toFixed(1)} ×`,
    ...(judged && { target: `≤ ${TARGETS[name]} ×`, reached: ratios[name] <= TARGETS[name] }),
  });
  return [told(when, times), row('p50'), row('p99')];
}

let mails = 0;

/** Milliseconds of each, one after another. */
async function measure({ stage }: Bench, arrivals: Arrivals, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let n = 0; n < count; n++) {
    const address = `to${++mails}@urgent.example`;
    const { status, body } = await queueEmail(stage, stage.key, {
      email_type: 'urgent',
      subject: 'Your code',
      email_template: 'default_template',
      email_data: '{"code": "123456"}',
      to_address: [address],
      priority_level: '1',
    });
    const queued = Number(process.hrtime.bigint()) / 1e6;
    if (status !== 201) throw new Error(`answered ${status}: ${body.message}`);
    const arrived = await until('an urgent mail', () => arrivals.get(address));
    times.push(Math.max(0, arrived - queued)); // it may arrive before its 201 does
    await pause(PAUSE_MS);
  }
  return times;
}
