// What a mail costs in PostgreSQL: statements of the workers, WAL, CPU; and which statements that is.
import type { Bench } from '../context.ts';
import type { Found } from '../report.ts';
import { runSend } from '../run.ts';
import { fastest, startWorkers } from '../workers.ts';

const MOST_SHOWN = 12;
const TEXT_WIDTH = 110;

export async function measureCost(bench: Bench): Promise<Found> {
  const { pool } = bench.stage;
  const { members } = bench.options;
  await bench.stage.fillList('everybody', members);
  await pool.query('create extension if not exists pg_stat_statements');
  const { rows: database } = await pool.query('select quote_ident(current_database()) as name');
  const track = `alter database ${database[0].name}`;
  // Of sessions that begin from now on: those of the workers.
  await pool.query(`${track} set pg_stat_statements.track = 'top'`);
  const workers = await startWorkers(bench, { processes: fastest(bench) });
  try {
    await pool.query('select pg_stat_statements_reset()');
    const { rows: start } = await pool.query('select pg_current_wal_insert_lsn() as lsn');
    const { cpu } = await runSend(bench, workers, { list: 'everybody', members });
    const { rows } = await pool.query(
      `select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)::float8 as wal,
         sum(calls)::float8 as calls, sum(wal_fpi)::float8 as images
       from pg_stat_statements`,
      [start[0].lsn],
    );
    const { wal, calls, images } = rows[0] as Record<string, number>;
    const perMail = (measure: string, figure: string) => ({
      measure: `${measure} per mail`,
      figure,
    });
    return {
      rows: [
        perMail('statements of the workers', (calls! / members).toFixed(3)),
        perMail('WAL', `${(wal! / members).toFixed(0)} bytes (${images} whole pages in all)`),
        ...(cpu ? [perMail('CPU of PostgreSQL', `${cpu.postgres!.toFixed(0)} µs`)] : []),
      ],
      notes: [await topStatements(bench, members)],
    };
  } finally {
    await workers.stop();
    await pool.query(`${track} reset pg_stat_statements.track`);
  }
}

async function topStatements({ stage }: Bench, members: number): Promise<string> {
  const { rows } = await stage.pool.query<Record<string, number> & { query: string }>(
    `select round((1000 * total_exec_time / $1)::numeric, 1)::float8 as each, calls::integer,
       round(mean_exec_time::numeric, 2)::float8 as mean, (wal_bytes / $1)::integer as wal,
       regexp_replace(query, '\\s+', ' ', 'g') as query
     from pg_stat_statements order by total_exec_time desc limit $2`,
    [members, MOST_SHOWN],
  );
  const cells = (each: unknown, calls: unknown, mean: unknown, wal: unknown, query: string) =>
    [each, calls, mean, wal].map((cell) => String(cell).padStart(9)).join('') +
    `  ${query.trim().slice(0, TEXT_WIDTH)}`;
  return [
    'statements of the workers by time:',
    cells('µs/mail', 'calls', 'mean ms', 'WAL/mail', 'statement'),
    ...rows.map(({ each, calls, mean, wal, query }) => cells(each, calls, mean, wal, query)),
  ].join('\n');
}
