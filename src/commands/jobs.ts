// Command jobs: what waits, what runs and what is stuck, by task, lane, state and age.
import { sql } from 'kysely';
import type { Database } from '../database/connect.ts';
import { findPause } from '../messages/pause.ts';
import { listBreakers } from '../smtp/breakers.ts';
import { LANE_NAMES, LANES, type TaskName } from '../queue.ts';

interface Row {
  name: string;
  state: string;
  count: number;
  /** Seconds. */
  age: number | null;
}

/** The lines to print. */
export async function jobLines(db: Database): Promise<string[]> {
  const pause = await findPause(db);
  const delivery = pause
    ? `Delivery is PAUSED since ${pause.paused_at.toISOString()}${pause.reason ? `: ${pause.reason}` : ''}`
    : 'Delivery is running';
  return [
    delivery,
    ...table(
      'Workers',
      ['worker', 'lanes', 'state', 'sign of life'],
      (await readWorkers(db)).map(({ name, lanes, state, age }) => [
        name,
        lanes,
        state,
        shown(age),
      ]),
    ),
    ...table(
      'Stopped or slowed',
      ['mail server', 'what', 'why', 'next try', 'last reply'],
      (await listBreakers(db)).map((one) => [
        one.transport,
        one.sender ?? one.domain ?? 'all',
        one.reason,
        one.retry_at.toISOString(),
        one.last_reply,
      ]),
    ),
    ...table(
      'Jobs',
      ['task', 'lane', 'state', 'jobs', 'oldest'],
      (await readJobs(db)).map(({ name, state, count, age }) => [
        name,
        laneOf(name),
        state,
        String(count),
        shown(age),
      ]),
    ),
    ...table(
      'Mail',
      ['kind', 'state', 'number', 'oldest'],
      (await readMail(db)).map(({ name, state, count, age }) => [
        name,
        state,
        String(count),
        shown(age),
      ]),
    ),
  ];
}

async function readWorkers(db: Database): Promise<(Row & { lanes: string })[]> {
  const { rows } = await sql<Row & { lanes: string }>`
    select id || ' ' || hostname || ':' || pid as name, array_to_string(lanes, ',') as lanes,
      case when stopped_at is null then 'running' else 'dead, not settled yet' end as state,
      extract(epoch from now() - heartbeat_at)::float8 as age
    from workers where stopped_at is null or recovered_at is null
    order by id
  `.execute(db);
  return rows;
}

async function readJobs(db: Database): Promise<Row[]> {
  const { rows } = await sql<Row>`
    select task_identifier as name, state, count(*)::integer as count,
      extract(epoch from now() - min(case state when 'running' then locked_at else run_at end))::float8 as age
    from (
      select *, case
        when locked_at is not null then 'running'
        when attempts >= max_attempts then 'given up'
        when run_at > now() then 'later'
        else 'waiting' end as state
      from graphile_worker.jobs
    ) job
    group by 1, 2 order by 1, 2
  `.execute(db);
  return rows;
}

/** Chunks of list mail, and single emails, that are not finished. */
async function readMail(db: Database): Promise<Row[]> {
  const { rows } = await sql<Row>`
    select 'chunk of a send' as name,
      case
        when leased_by is not null then 'being delivered'
        when prepared_at is null then 'to prepare'
        when next_attempt_at > now() then 'put off'
        else 'due' end as state,
      count(*)::integer as count,
      extract(epoch from now() - min(s.created_at))::float8 as age
    from sends s join send_chunks k on k.client_id = s.client_id and k.send_id = s.id
    where s.completed_at is null and k.completed_at is null
    group by 1, 2
    union all
    select 'single, ' || case priority_level when 1 then 'high' when 2 then 'normal' else 'low' end,
      case queue_state when 'claimed' then 'being delivered' when 'deferred' then 'put off' else 'due' end,
      count(*)::integer, extract(epoch from now() - min(queued_at))::float8
    from single_emails where queue_state in ('due', 'deferred', 'claimed')
    group by 1, 2
    order by 1, 2
  `.execute(db);
  return rows;
}

function laneOf(task: string): string {
  return LANE_NAMES.find((lane) => LANES[lane].some((name: TaskName) => name === task)) ?? '-';
}

function shown(age: number | null): string {
  if (age === null || age < 0) return '-';
  if (age < 120) return `${age.toFixed(0)} s`;
  if (age < 7200) return `${(age / 60).toFixed(0)} min`;
  return age < 172_800 ? `${(age / 3600).toFixed(0)} h` : `${(age / 86_400).toFixed(0)} d`;
}

/** Columns as wide as their widest entry. */
export function table(title: string, head: string[], rows: string[][]): string[] {
  if (rows.length === 0) return ['', `${title}: none`];
  const widths = head.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => row[column]!.length)),
  );
  const line = (cells: string[]) =>
    `  ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join('  ')}`.trimEnd();
  return ['', title, line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)];
}
