// Command work: a worker without the API.
import v8 from 'node:v8';
import { readConfig, requireDatabaseUrl, requireTransports } from '../config.ts';
import { warnOfPublicUrl } from './public-url.ts';
import { createLogger } from '../log.ts';
import { LANE_NAMES } from '../queue.ts';
import { loadTemplates } from '../templates/registry.ts';
import { connectWorker, startWorker, type WorkerOptions } from '../worker/worker.ts';
import { runUntilSignal } from './signals.ts';

/**
 * Mail after mail leaves garbage behind, and on a machine with much memory V8 lets that grow several times
 * over before it is collected: 376 MiB in a send of a million. By half is enough.
 */
const HEAP_GROWTH = '--heap-growing-percent=50';

export async function work({
  lanes = LANE_NAMES,
  rendering,
}: Pick<WorkerOptions, 'lanes' | 'rendering'>): Promise<void> {
  v8.setFlagsFromString(HEAP_GROWTH);
  const config = readConfig();
  const log = createLogger(config.logLevel);
  const url = requireDatabaseUrl(config);
  const transports = requireTransports(config);
  warnOfPublicUrl(config, log);
  const connection = connectWorker(url, log);
  const worker = await startWorker({
    connection,
    log,
    templates: await loadTemplates(),
    transports,
    lanes,
    ...(rendering && { rendering }),
    callback: config.callback,
    retentionDays: config.retentionDays,
    timing: config.timing,
    publicUrl: config.publicUrl,
    unsubscribeMailto: config.unsubscribeMailto,
  });
  await runUntilSignal(worker);
  await connection.close();
}
