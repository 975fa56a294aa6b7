// What GET /api/sends/{id} costs while the send drains: its statement's plan and time, and the request's
// time beside that on an idle machine.
import { Kysely, PostgresDialect, type CompiledQuery } from 'kysely';
import { setTimeout as pause } from 'node:timers/promises';
import type { DB } from '../../../src/database/schema.ts';
import { getSend } from '../../../src/sends/sends.ts';
import type { Bench } from '../context.ts';
import { whileDraining } from '../draining.ts';
import type { Found, Row } from '../report.ts';
import { runSend } from '../run.ts';
import { median, percentile } from '../statistics.ts';
import { fastest, startWorkers } from '../workers.ts';

const REQUESTS = 300;
const EXPLAINS = 20;
const PAUSE_MS = 10;
const STATEMENT_TARGET_MS = 5;
const REQUEST_TARGET = 5;

export async function measureReading(bench: Bench): Promise<Found> {
  const { members } = bench.options;
  await bench.stage.fillList('everybody', members);
  const read = async (id: string) => ({
    requests: await requestTimes(bench, id),
    plans: await explain(bench, id),
  });
  const workers = await startWorkers(bench, { processes: fastest(bench) });
  let idle: number[];
  let full: Awaited<ReturnType<typeof drained>>;
  const drained = () => whileDraining(bench, read);
  try {
    await runSend(bench, workers, { list: 'everybody', members });
    const { rows } = await bench.stage.pool.query('select id from sends order by id desc limit 1');
    idle = await requestTimes(bench, rows[0].id);
    full = await drained();
  } finally {
    await workers.stop();
  }
  const perSecond = Math.ceil(full.rate / 3);
  const slow = await startWorkers(bench, {
    processes: fastest(bench),
    transports: [{ name: 'bulk', url: bench.sink.url, messages_per_second: perSecond }],
  });
  try {
    const limited = await drained();
    return {
      rows: [
        statementRow(full.value.plans),
        scansRow([...full.value.plans, ...limited.value.plans]),
        requestRow(`draining at ${full.rate.toFixed(0)}/s, saturated`, full.value.requests, idle),
        requestRow(`draining at ${limited.rate.toFixed(0)}/s`, limited.value.requests, idle),
      ],
    };
  } finally {
    await slow.stop();
  }
}

async function requestTimes({ stage }: Bench, id: string): Promise<number[]> {
  const times: number[] = [];
  for (let n = 0; n < REQUESTS; n++) {
    const started = performance.now();
    const { status } = await stage.api('GET', `/api/sends/${id}`);
    times.push(performance.now() - started);
    if (status !== 200) throw new Error(`answered ${status}`);
    await pause(PAUSE_MS);
  }
  return times;
}

interface PlanNode {
  'Node Type': string;
  'Relation Name'?: string;
  'Actual Rows': number;
  'Rows Removed by Filter'?: number;
  Plans?: PlanNode[];
}

interface Explained {
  Plan: PlanNode;
  'Execution Time': number;
}

/** Of the very statement that the API executes. */
async function explain({ stage }: Bench, id: string): Promise<Explained[]> {
  const { rows } = await stage.pool.query('select client_id from sends where id = $1', [id]);
  const statements: CompiledQuery[] = [];
  const db = new Kysely<DB>({
    dialect: new PostgresDialect({ pool: stage.pool }),
    log: ({ query }) => void statements.push(query),
  });
  await getSend(db, rows[0].client_id, id);
  const { sql, parameters } = statements[0]!;
  const explained: Explained[] = [];
  for (let n = 0; n < EXPLAINS; n++) {
    const { rows: plans } = await stage.pool.query(
      `explain (analyze, buffers, format json) ${sql}`,
      [...parameters],
    );
    explained.push(plans[0]['QUERY PLAN'][0]);
    await pause(PAUSE_MS);
  }
  return explained;
}

function statementRow(plans: Explained[]): Row {
  const times = plans.map((one) => one['Execution Time']);
  return {
    measure: 'statement of GET /api/sends/{id} while the send drains, saturated',
    figure: `${median(times).toFixed(2)} ms`,
    target: `≤ ${STATEMENT_TARGET_MS} ms`,
    reached: median(times) <= STATEMENT_TARGET_MS,
    runs: { ms: times },
  };
}

/** Right for a table of one page: whether there are any shows at size. */
function scansRow(plans: Explained[]): Row {
  const scans = plans.flatMap(({ Plan }) => seqScans(Plan));
  const rows = new Map<string, number>();
  for (const scan of scans) {
    const name = scan['Relation Name'] ?? '?';
    const read = scan['Actual Rows'] + (scan['Rows Removed by Filter'] ?? 0);
    rows.set(name, Math.max(read, rows.get(name) ?? 0));
  }
  const found = [...rows].map(([name, read]) => `of ${name}, ${read} rows`);
  return {
    measure: '  its sequential scans',
    figure: found.join('; ') || 'none',
    target: 'none',
    reached: found.length === 0,
  };
}

function seqScans(node: PlanNode): PlanNode[] {
  const own = node['Node Type'] === 'Seq Scan' ? [node] : [];
  return [...own, ...(node.Plans ?? []).flatMap(seqScans)];
}

function requestRow(when: string, times: number[], idle: number[]): Row {
  const ratio = percentile(times, 0.99) / percentile(idle, 0.99);
  return {
    measure: `p99 of GET /api/sends/{id}, ${when}, over idle`,
    figure:
      `${ratio.toFixed(1)} × (${percentile(times, 0.99).toFixed(1)} over ` +
      `${percentile(idle, 0.99).toFixed(1)} ms)`,
    target: `≤ ${REQUEST_TARGET} ×`,
    reached: ratio <= REQUEST_TARGET,
    runs: { ms: times, 'idle, ms': idle },
  };
}
