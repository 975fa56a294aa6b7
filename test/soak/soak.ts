// Continuous load while worker, API and PostgreSQL are killed at random, again and again. Afterwards
// nothing may be lost, and copies are counted: only of messages that were unknown, and at most as many
// as mail connections were open at the kills. `npm run soak -- --cycles 200 --seed 7`.
import { parseArgs } from 'node:util';
import {
  brokenCounts,
  startMailing,
  untilSettled,
  accountFor,
  type Account,
  type Mailing,
} from '../support/mailing.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { seededRandom } from '../support/random.ts';
import { RestartablePostgres } from '../support/restartable-postgres.ts';

const WORKERS = 2;
const MEMBERS = 500;
const SINGLES = 50;
/** Mails of one worker at once: 20 bulk, 5 urgent, 5 others. */
const CONNECTIONS = 30;
/** Accepted between one kill and the next, at most. */
const MOST_BETWEEN = 120;
/** Mailings under way at once. */
const UNDER_WAY = 2;

const TARGETS = ['worker', 'api', 'postgres'] as const;
type Target = (typeof TARGETS)[number];

const { values } = parseArgs({
  options: {
    cycles: { type: 'string', default: '20' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
  },
});
const cycles = Number(values.cycles);
const seed = Number(values.seed);
const random = seededRandom(seed);

process.stdout.write(`soak: ${cycles} cycles, seed ${seed}\n`);
const server = await new RestartablePostgres({ max_connections: '100' }).open();
const stage = await openFaultStage({ databaseUrl: server.url, members: MEMBERS, seed });
const workers = Array.from({ length: WORKERS }, () => stage.keepWorker());
const kills: Record<Target, number> = { worker: 0, api: 0, postgres: 0 };
const mailings: Mailing[] = [];
const load = startLoad();

for (let cycle = 1; cycle <= cycles; cycle++) {
  const more = 1 + Math.floor(random() * MOST_BETWEEN);
  await stage.untilMore(more);
  const target = TARGETS[Math.floor(random() * TARGETS.length)]!;
  await kill(target);
  kills[target] += 1;
  if (cycle % 20 === 0) process.stdout.write(`${cycle} cycles\n`);
}

load.stop();
await load.done;
for (const mailing of mailings) await untilSettled(stage.pool, mailing, 300_000);
const account = await accountForAll();
const broken = await brokenCounts(stage.pool);
const verdict = report(account, broken);
await stage.close();
await server.close();
process.exit(verdict ? 0 : 1);

/** Mailings one after the other, some at once, until told to stop. */
function startLoad(): { stop(): void; done: Promise<unknown> } {
  const stopping = new AbortController();
  let made = 0;
  const mail = async () => {
    while (!stopping.signal.aborted) {
      const n = made++;
      const policy = n % 2 === 0 ? 'retry' : 'hold';
      const mailing = await startMailing(stage, { name: `soak ${n}`, singles: SINGLES, policy });
      mailings.push(mailing);
      if (!stopping.signal.aborted) await untilSettled(stage.pool, mailing, 300_000);
    }
  };
  return {
    stop: () => stopping.abort(),
    done: Promise.all(Array.from({ length: UNDER_WAY }, mail)),
  };
}

async function kill(target: Target): Promise<void> {
  if (target === 'worker') {
    await workers[Math.floor(random() * workers.length)]!.kill();
  } else if (target === 'api') {
    await stage.apiProcess.kill();
    await stage.startApi();
  } else {
    await server.stopNow();
    await server.start();
  }
}

async function accountForAll(): Promise<Account> {
  const total = await accountFor(stage.pool, mailings[0]!, stage.sink.journal, stage.sink.refused);
  for (const mailing of mailings.slice(1)) {
    const one = await accountFor(stage.pool, mailing, stage.sink.journal, stage.sink.refused);
    for (const key of Object.keys(total) as (keyof Account)[]) {
      total[key] =
        key === 'mostCopies' ? Math.max(total.mostCopies, one.mostCopies) : total[key] + one[key];
    }
  }
  return total;
}

/** Prints the table; true where all that was promised holds. */
function report(total: Account, broken: unknown[]): boolean {
  // Workers can be in doubt when they are killed, or end because PostgreSQL was.
  const bound = CONNECTIONS * (kills.worker + kills.postgres * WORKERS);
  const rows: [string, string | number][] = [
    ['cycles', `${cycles} (worker ${kills.worker}, api ${kills.api}, postgres ${kills.postgres})`],
    ['seed', seed],
    ['mailings', mailings.length],
    ['mails', total.mails],
    ['sent', total.sent],
    ['failed', total.failed],
    ['lost', total.lost],
    ['were unknown', total.wasUnknown],
    ['are unknown', total.unknown],
    ['duplicates', total.duplicates],
    ['of them never unknown', total.unexplained],
    ['bound', bound],
    ['most copies of one mail', total.mostCopies],
    ['sends whose counts are wrong', broken.length],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) process.stdout.write(`${name.padEnd(width)}  ${value}\n`);
  return (
    total.lost === 0 &&
    total.failed === 0 &&
    total.unexplained === 0 &&
    total.duplicates <= bound &&
    total.mostCopies <= 2 &&
    broken.length === 0
  );
}
