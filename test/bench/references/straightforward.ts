// Reference: what most teams would write. A graphile-worker job per recipient, each renders its mail and
// gives it to nodemailer's pooled transport; one process, 20 jobs at once, in a database of its own.
import { render, toPlainText } from '@react-email/render';
import { Logger, run, runMigrations } from 'graphile-worker';
import { createTransport } from 'nodemailer';
import pg from 'pg';
import { loadTemplates, requireTemplate } from '../../../src/templates/registry.ts';
import { addressOf, personalOf, SENDER, SHARED, TEMPLATE } from '../mailing.ts';
import { serveReference, sinkOptions } from './serve.ts';

const AT_ONCE = 20;
const JOBS_PER_CALL = 1000;

interface Payload {
  to: string;
  recipient: ReturnType<typeof personalOf>;
}

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL!, max: AT_ONCE });
pool.on('error', () => process.exit(1));
pool.on('connect', (client) => client.on('error', () => undefined));
// Without a log, which costs.
const logger = new Logger(() => () => undefined);
await runMigrations({ pgPool: pool, logger });
const template = requireTemplate(await loadTemplates(), TEMPLATE);
const transport = createTransport({ ...sinkOptions(), pool: true, maxConnections: AT_ONCE });
let delivered: () => void = () => undefined;

await run({
  pgPool: pool,
  concurrency: AT_ONCE,
  noHandleSignals: true,
  logger,
  taskList: {
    send_email: async (payload) => {
      const { to, recipient } = payload as Payload;
      const props = { shared: SHARED, recipient, links: {} };
      const html = await render(template.component(props));
      const subject = template.subject(props);
      await transport.sendMail({ from: SENDER, to, subject, html, text: toPlainText(html) });
      delivered();
    },
  },
});

serveReference({
  send: async (count, sent) => {
    const all = Promise.withResolvers<void>();
    let left = count;
    delivered = () => {
      sent();
      left -= 1;
      if (left === 0) all.resolve();
    };
    for (let at = 0; at < count; at += JOBS_PER_CALL) {
      await addJobs(at + 1, Math.min(count, at + JOBS_PER_CALL));
    }
    await all.promise;
  },
});

async function addJobs(from: number, to: number): Promise<void> {
  const payloads = Array.from({ length: to - from + 1 }, (_, index) => ({
    to: addressOf(from + index),
    recipient: personalOf(from + index),
  }));
  await pool.query(
    `select count(graphile_worker.add_job('send_email', payload))
     from json_array_elements($1::json) payload`,
    [JSON.stringify(payloads)],
  );
}
