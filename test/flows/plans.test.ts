// What a mail costs in PostgreSQL must not depend on what its planner knows: a list is imported, triggered
// and sent before any statistics exist, and the plans of the hot statements are kept from the time when
// the tables were all but empty. Plans come from the statements as they run (auto_explain).
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connect, type Connection } from '../../src/database/connect.ts';
import { createLogger } from '../../src/log.ts';
import { claimFromChunk, leaseChunk } from '../../src/messages/claim.ts';
import { listMessagesOfSend } from '../../src/messages/messages.ts';
import { recordOutcomes } from '../../src/messages/record.ts';
import { closeChunk, settleChunk } from '../../src/sends/complete.ts';
import { makeMessages } from '../../src/sends/make-messages.ts';
import { getSend } from '../../src/sends/sends.ts';
import { useDatabase } from '../support/database.ts';

const database = useDatabase();

const WORKER = 1;
const CHUNK = 500;
const CLAIM = 20;
/** A row is found by at most ten indexes, which are three pages deep, and stands in as many itself. */
const PAGES_PER_ROW = 60;
const TABLES = 'messages, send_chunks, send_recipients, contacts, list_members, sends';
const RULES = { list_id: 1, requires_consent: true, has_callback: false };

interface Plan {
  text: string;
  pages: number;
  /** Tables that are read from their beginning to their end. */
  readWhole: string[];
}

interface Node {
  'Node Type': string;
  'Relation Name'?: string;
  Plans?: Node[];
}

let connection: Connection;
let plans: Plan[];

beforeEach(async () => {
  const { pool } = database;
  await pool.query(`truncate ${TABLES} cascade`);
  await pool.query(`
    insert into clients (id, key, name) overriding system value values (1, 'acme', 'acme');
    insert into recipient_lists (client_id, id, key) overriding system value values (1, 1, 'l');
    insert into workers (id, hostname, pid, lanes, application_name, heartbeat_seconds, dead_after_seconds)
    values (${WORKER}, 'here', 1, '{}', 'test', 1, 1000)`);
  plans = [];
});

afterEach(async () => {
  await connection.close();
  for (const table of TABLES.split(', '))
    await database.pool.query(`alter table ${table} reset (autovacuum_enabled)`);
});

/** One session, as a worker's or the API's. */
async function open(byKey: boolean, mode = 'auto'): Promise<void> {
  connection = connect({ url: database.url, log: createLogger('silent'), max: 1, byKey });
  connection.pool.on('connect', (client) =>
    client.on('notice', ({ message }) => {
      const { Plan: root } = JSON.parse(message!.slice(message!.indexOf('{')));
      plans.push({
        text: message!,
        pages: root['Shared Hit Blocks'] + root['Shared Read Blocks'],
        readWhole: readWhole(root),
      });
    }),
  );
  for (const table of TABLES.split(', '))
    await database.pool.query(`alter table ${table} set (autovacuum_enabled = off)`);
  await connection.pool.query(`load 'auto_explain'`);
  await connection.pool.query(`
    set auto_explain.log_level = notice; set auto_explain.log_analyze = on;
    set auto_explain.log_buffers = on; set auto_explain.log_format = json;
    set plan_cache_mode = ${mode}; set auto_explain.log_min_duration = 0`);
}

function readWhole(node: Node): string[] {
  const own = node['Node Type'] === 'Seq Scan' ? [node['Relation Name']!] : [];
  return [...own, ...(node.Plans ?? []).flatMap(readWhole)];
}

/** A list's members are imported and a send to them is triggered and cut. */
async function addSend(members: number): Promise<string> {
  const { pool } = connection;
  const { rows } = await pool.query(
    `insert into sends (client_id, send_key, list_id, list_key, request_digest, template_key, template_version,
       requires_consent, on_unknown, sender_id, sender_email, state, intended, open_chunks)
     select 1, count(*)::text, 1, 'l', '{}', 't', '1', true, 'hold', 's', 's@school.example', 'sending', $1, $2
     from sends returning id`,
    [members, Math.ceil(members / CHUNK)],
  );
  const { id } = rows[0];
  await pool.query(
    `with made as (
       insert into contacts (client_id, email, email_given)
       select 1, $1 || '-' || n || '@list.example', $1 || '-' || n || '@list.example'
       from generate_series(1, $2::integer) n returning id, email
     ),
     member as (
       insert into list_members (client_id, list_id, source_object_key, contact_id)
       select 1, 1, email, id from made
     )
     insert into send_recipients (client_id, send_id, position, contact_id, source_object_key)
     select 1, $1::uuid, row_number() over (), id, email from made`,
    [id, members],
  );
  await pool.query(
    `insert into send_chunks (client_id, send_id, chunk_no, first_position, last_position)
     select 1, $1, n, (n - 1) * ${CHUNK} + 1, least(n * ${CHUNK}, $2::integer)
     from generate_series(1, ceil($2::float8 / ${CHUNK})::integer) n`,
    [id, members],
  );
  return id;
}

/** Half of them done. */
async function addChunks(id: string, chunks: number): Promise<void> {
  await connection.pool.query(
    `insert into send_chunks (client_id, send_id, chunk_no, first_position, last_position, sent,
       skipped_unsubscribed, skipped_hard_bounce)
     select 1, $1, n, (n - 1) * ${CHUNK} + 1, n * ${CHUNK}, case when n % 2 = 0 then 490 else 0 end, n % 5, n % 3
     from generate_series(2, $2::integer) n`,
    [id, chunks],
  );
}

/** What `work` touches for each of `rows`. */
async function expectCheap<Result>(rows: number, work: () => Promise<Result>): Promise<Result> {
  plans = [];
  const result = await work();
  expect(plans.length).toBeGreaterThan(0);
  for (const { text, pages, readWhole: whole } of plans) {
    expect(pages, text).toBeLessThan(PAGES_PER_ROW * rows);
    expect(whole, text).toEqual([]);
  }
  return result;
}

/** Each step as the tasks do it. */
async function deliver(send_id: string, chunk_no: number, watch = expectCheap): Promise<void> {
  const { db } = connection;
  const ref = { client_id: 1, send_id, chunk_no };
  const inTrx = <Result>(work: (trx: Parameters<typeof makeMessages>[0]) => Promise<Result>) =>
    db.transaction().execute(work);
  await watch(CHUNK, () => inTrx((trx) => makeMessages(trx, ref, RULES)));
  const chunk = (await watch(CLAIM, () => leaseChunk(db, WORKER, ref)))!;
  for (let round = 0; round < 2; round++) {
    const { claimed } = await watch(CLAIM, () => claimFromChunk(db, WORKER, chunk, RULES, CLAIM));
    expect(claimed.length).toBeGreaterThan(0);
    const outcome = { kind: 'sent', reply: '250 ok' } as const;
    await watch(CLAIM, () =>
      recordOutcomes(
        db,
        WORKER,
        claimed.map(({ id }) => ({ chunk, message_id: id, outcome })),
      ),
    );
  }
  await watch(CHUNK, () => inTrx((trx) => settleChunk(trx, ref, WORKER)));
}

async function unwatched<Result>(_rows: number, work: () => Promise<Result>): Promise<Result> {
  return work();
}

describe('a chunk of a large send costs what it should', () => {
  const MEMBERS = 20_000;
  const last = MEMBERS / CHUNK;

  it.each([
    ['were never looked at', '', 'auto'],
    ['were never looked at', '', 'force_generic_plan'],
    ['were empty when they were', 'empty', 'auto'],
    ['were empty when they were', 'empty', 'force_generic_plan'],
    ['were small when they were', 'small', 'auto'],
    ['were small when they were', 'small', 'force_generic_plan'],
    ['have just been', 'large', 'auto'],
    ['have just been', 'large', 'force_generic_plan'],
  ])('where the tables %s (%s, %s)', async (_, known, mode) => {
    await open(true, mode);
    if (known === 'empty') await database.pool.query(`vacuum analyze ${TABLES}`);
    for (let times = 0; times < 4; times++) await deliver(await addSend(30), 1, unwatched);
    if (known === 'small') await database.pool.query(`analyze ${TABLES}`);
    const id = await addSend(MEMBERS);
    for (let chunk = 1; chunk < last; chunk++)
      await connection.db
        .transaction()
        .execute((trx) => makeMessages(trx, { client_id: 1, send_id: id, chunk_no: chunk }, RULES));
    if (known === 'large') await database.pool.query(`analyze ${TABLES}`);

    await deliver(id, last);
    await database.pool.query(`update sends set state = 'cancelled' where id = $1`, [id]);
    await expectCheap(CHUNK, () =>
      connection.db
        .transaction()
        .execute((trx) => closeChunk(trx, { client_id: 1, send_id: id, chunk_no: last - 1 })),
    );
    // Planned once, and then no more.
    const { rows } = await connection.pool.query(
      `select statement, generic_plans, custom_plans from pg_prepared_statements`,
    );
    expect(rows.length).toBe(2);
    for (const { statement, generic_plans } of rows)
      expect(Number(generic_plans), statement).toBeGreaterThan(0);
  });
});

describe('reading a send of a million members', () => {
  it.each([
    ['were never looked at', ''],
    ['were small when they were', 'small'],
    ['have just been', 'large'],
  ])('reads its own chunks, where the tables %s', async (_, known) => {
    await open(false);
    await addSend(30);
    if (known === 'small') await connection.pool.query(`analyze ${TABLES}`);
    for (let send = 0; send < 3; send++) await addChunks(await addSend(30), 2000);
    const id = await addSend(30);
    await addChunks(id, 2000);
    if (known === 'large') await connection.pool.query(`analyze ${TABLES}`);

    plans = [];
    const send = await getSend(connection.db, 1, id);
    expect(send.skipped_by_reason).toEqual({ hard_bounce: 2000, unsubscribed: 3999 });
    expect(plans.length).toBeGreaterThan(0);
    for (const { text, readWhole: whole } of plans)
      expect(whole, text).not.toContain('send_chunks');
  });
});

describe('reading the messages of a small send beside a large one', () => {
  it.each([
    ['were never looked at', ''],
    ['have just been', 'large'],
  ])('reads its own, where the tables %s', async (_, known) => {
    await open(true);
    const large = await addSend(5_000);
    const small = await addSend(30);
    const refs = [
      ...Array.from({ length: 10 }, (_chunk, at) => ({ send_id: large, chunk_no: at + 1 })),
      { send_id: small, chunk_no: 1 },
    ];
    for (const ref of refs)
      await connection.db
        .transaction()
        .execute((trx) => makeMessages(trx, { client_id: 1, ...ref }, RULES));
    await connection.close();
    await open(false);
    if (known === 'large') await connection.pool.query(`analyze ${TABLES}`);
    plans = [];
    const { rows } = await listMessagesOfSend(connection.db, 1, small, undefined, { limit: 100 });
    expect(rows).toHaveLength(30);
    const all = await connection.pool.query(`select * from reporting.messages where send_id = $1`, [
      small,
    ]);
    expect(all.rows).toHaveLength(30);
    expect(plans).toHaveLength(2);
    for (const { text, pages, readWhole: whole } of plans) {
      expect(pages, text).toBeLessThan(PAGES_PER_ROW * 30);
      expect(whole, text).not.toContain('messages');
    }
  });
});
