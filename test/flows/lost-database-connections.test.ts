// The database drops connections while mail goes out: delayed, but each once, and nothing stays behind
// in the hands of a worker that lives.
import { expect, it } from 'vitest';
import { connect } from '../../src/database/connect.ts';
import { createLogger } from '../../src/log.ts';
import { anEmail, queueEmail, registerExampleTypes } from '../support/emails.ts';
import { scoreSend, someMembers, useHarness } from '../support/harness.ts';
import { until } from '../support/until.ts';

const h = useHarness();

/**
 * A worker, and another one where it ends: graphile-worker gives a lane up that could not complete a job,
 * and the process with it.
 */
async function keepWorker(): Promise<void> {
  const { ended } = await h.startWorker();
  ended.catch(() => keepWorker());
}

/** Ends all connections of the worker, again and again, each time after some more mail went out. */
async function terminateWhileSending(times: number, every: number): Promise<void> {
  for (let n = 0; n < times; n++) {
    const before = h.sink.accepted.length;
    await until('more mail', () => h.sink.accepted.length >= before + every);
    await h.database.pool.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and application_name like 'rosterpost worker%'`,
    );
  }
}

it('a list send is finished all the same', async () => {
  await h.api('POST', '/api/recipient-lists/l/members/bulk-upsert', { members: someMembers(2000) });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  await keepWorker();
  await terminateWhileSending(8, 100);
  const done = await h.waitFor(body.send.id, (send) => send.completed_at !== null, 60_000);
  expect(done.counts).toMatchObject({ sent: 2000, unknown: 0 });
  expect(h.sink.accepted).toHaveLength(2000);
  expect(new Set(h.sink.countByRecipient().values())).toEqual(new Set([1]));
});

it('single emails are sent all the same', async () => {
  await registerExampleTypes(h);
  for (let n = 0; n < 200; n++) {
    const { status } = await queueEmail(
      h,
      h.key,
      anEmail({
        to_address: [`to${n}@x.example`],
        cc_addresses: [`cc${n}@x.example`],
        bcc_addresses: [`bcc${n}@x.example`],
      }),
    );
    expect(status).toBe(201);
  }
  await keepWorker();
  await terminateWhileSending(5, 10);
  await until('all to be sent', async () => {
    const { rows } = await h.database.pool.query(
      "select count(*)::integer as left from messages where state <> 'sent'",
    );
    return rows[0].left === 0;
  });
  expect(h.sink.accepted).toHaveLength(200);
});

it('a connection that does not answer is left, and nobody waits behind it', async () => {
  const { url } = h.database;
  const log = createLogger('silent');
  const connection = connect({ url, log, max: 1, queryTimeoutMs: 300 });
  await expect(connection.pool.query('select pg_sleep(60)')).rejects.toThrow('timeout');
  const { rows } = await connection.pool.query('select 1 as one');
  expect(rows).toEqual([{ one: 1 }]);
  await connection.close();
  await h.database.pool.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()",
  );
});
