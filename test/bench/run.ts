// One measured run: so many mails, in so many seconds, and what that cost each process; of a reference,
// or of a send of ours from its POST to its completion.
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { startScript, stopInTime } from '../support/processes.ts';
import type { Bench } from './context.ts';
import { watchCpu, type Cpu } from './cpu.ts';
import { personalOf, triggerOf, type PersonalOf } from './mailing.ts';
import { TICK_SECONDS } from './plot.ts';
import type { Answer } from './references/serve.ts';

export interface Run {
  mails: number;
  seconds: number;
  /** Mails per second. */
  rate: number;
  /** CPU microseconds per mail by role; undefined off Linux. */
  cpu: Cpu | undefined;
  /** Mails in each quarter of a second. */
  ticks: number[];
}

export type ReferenceName = 'pooled' | 'bare' | 'straightforward';

/** The slowest thing that is still waited for, in mails per second, and what everything may take. */
const SLOWEST = 30;
const PATIENCE_SECONDS = 120;
const POLL_MS = 20;

/** Starts the reference, lets it warm up, measures it, ends it. */
export async function runReference(bench: Bench, name: ReferenceName, count: number): Promise<Run> {
  const { stage, sink, options } = bench;
  const database = new URL(stage.databaseUrl);
  if (name === 'straightforward') {
    await stage.pool.query('create database straightforward');
    database.pathname = '/straightforward';
  }
  const started = startScript(
    `test/bench/references/${name}.ts`,
    [],
    { DATABASE_URL: database.href, SMTP_URL: sink.url, BENCH_RAW: bench.readyMade.file },
    ['ignore', 'inherit', 'inherit', 'ipc'],
  );
  bench.started(started);
  const ask = async (mails: number): Promise<Answer> => {
    const signal = AbortSignal.timeout(longest(mails) * 1000);
    const answered = once(started.child, 'message', { signal });
    const ended = started.ended.then((code) => {
      throw new Error(`the reference ${name} ended with ${code}`);
    });
    started.child.send({ count: mails });
    const [answer] = (await Promise.race([answered, ended])) as [Answer | { error: string }];
    if ('error' in answer) throw new Error(answer.error);
    return answer;
  };
  try {
    await ask(Math.min(options.warmUp, count));
    const cpu = watchCpu({
      worker: started.child.pid!,
      postgres: stage.pids.postgres,
      sink: sink.process.child.pid!,
    });
    const { seconds, ticks } = await ask(count);
    return runOf(count, seconds, cpu(), ticks);
  } finally {
    await stopInTime(started);
    if (name === 'straightforward')
      await stage.pool.query('drop database straightforward with (force)');
  }
}

let sends = 0;

/** Triggers a send and waits for its completion; the list must be filled. @throws where one was not sent */
export async function runSend(
  { stage, sink }: Bench,
  workers: { pid: number },
  {
    list,
    members,
    personal = personalOf,
  }: { list: string; members: number; personal?: PersonalOf },
): Promise<Run> {
  const sendKey = `bench:${++sends}`;
  const body = triggerOf(sendKey, members, personal);
  const cpu = watchCpu({
    worker: workers.pid,
    postgres: stage.pids.postgres,
    sink: sink.process.child.pid!,
    api: stage.pids.api,
  });
  const started = performance.now();
  const triggered = await stage.api('POST', `/api/recipient-lists/${list}/send`, body, {
    'content-type': 'application/json',
  });
  if (triggered.status !== 202) throw new Error(JSON.stringify(triggered.body));
  const { id } = triggered.body.send;
  await untilCompleted(stage.pool, id, longest(members));
  const seconds = (performance.now() - started) / 1000;
  const used = cpu();
  const { body: after } = await stage.api('GET', `/api/sends/${id}`);
  const { counts } = after.send;
  if (counts.sent !== members) throw new Error(`not all were sent: ${JSON.stringify(counts)}`);
  return runOf(members, seconds, used, await ticksOf(stage.pool, id));
}

async function untilCompleted(pool: Bench['stage']['pool'], id: string, seconds: number) {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const { rows } = await pool.query('select completed_at from sends where id = $1', [id]);
    if (rows[0].completed_at !== null) return;
    if (performance.now() > deadline) throw new Error(`the send took more than ${seconds} s`);
    await pause(POLL_MS);
  }
}

/** As the database has recorded them. */
async function ticksOf(pool: Bench['stage']['pool'], id: string): Promise<number[]> {
  const { rows } = await pool.query<{ tick: number; mails: number }>(
    `select floor(extract(epoch from m.settled_at - s.created_at) / $2)::integer as tick,
       count(*)::integer as mails
     from sends s join messages m on m.client_id = s.client_id and m.send_id = s.id
     where s.id = $1 group by 1`,
    [id, TICK_SECONDS],
  );
  const ticks = Array.from({ length: Math.max(...rows.map(({ tick }) => tick)) + 1 }, () => 0);
  for (const { tick, mails } of rows) ticks[tick] = mails;
  return ticks;
}

function longest(mails: number): number {
  return Math.ceil(PATIENCE_SECONDS + mails / SLOWEST);
}

function runOf(mails: number, seconds: number, cpu: Cpu | undefined, ticks: number[]): Run {
  const perMail =
    cpu && Object.fromEntries(Object.entries(cpu).map(([role, used]) => [role, used / mails]));
  return { mails, seconds, rate: mails / seconds, cpu: perMail, ticks };
}
