// What the tasks run with. A worker process sets it for each job it runs; the graphile-worker CLI,
// which loads the tasks by itself, gets one made from the environment on first use.
import { AsyncLocalStorage } from 'node:async_hooks';
import { readConfig, requireDatabaseUrl, requireTransports } from '../config.ts';
import { connect } from '../database/connect.ts';
import { createLogger } from '../log.ts';
import type { Delivery } from '../messages/delivery.ts';
import { loadTemplates } from '../templates/registry.ts';
import { workerApplicationName } from './liveness.ts';
import { createDelivery } from './delivery.ts';

const current = new AsyncLocalStorage<Delivery>();
let ofCommandLine: Promise<Delivery> | undefined;

/** Runs a job so that `runtime()` inside it gives `delivery`. */
export function runWith<Result>(delivery: Delivery, job: () => Result): Result {
  return current.run(delivery, job);
}

export function runtime(): Promise<Delivery> {
  const delivery = current.getStore();
  return delivery ? Promise.resolve(delivery) : (ofCommandLine ??= createForCommandLine());
}

async function createForCommandLine(): Promise<Delivery> {
  const config = readConfig();
  const log = createLogger(config.logLevel);
  const connection = connect({
    url: requireDatabaseUrl(config),
    log,
    applicationName: workerApplicationName(),
    allowExitOnIdle: true,
  });
  const { delivery, close } = await createDelivery({
    connection,
    log,
    templates: await loadTemplates(),
    transports: requireTransports(config),
    callback: config.callback,
    retentionDays: config.retentionDays,
    timing: config.timing,
    publicUrl: config.publicUrl,
    unsubscribeMailto: config.unsubscribeMailto,
    lanes: [],
    smtpIdleMs: 100, // the command line waits one second for us to end
  });
  process.once('beforeExit', () => void close().then(() => connection.close()));
  return delivery;
}
