// Command work: a worker without the API.
import { readConfig, requireDatabaseUrl, requireTransports } from '../config.ts';
import { connect } from '../database/connect.ts';
import { warnOfPublicUrl } from './public-url.ts';
import { createLogger } from '../log.ts';
import { LANE_NAMES, type Lane } from '../queue.ts';
import { loadTemplates } from '../templates/registry.ts';
import { workerApplicationName } from '../worker/liveness.ts';
import { startWorker, WORKER_CONNECTIONS, WORKER_QUERY_MS } from '../worker/worker.ts';
import { runUntilSignal } from './signals.ts';

export async function work({ lanes = LANE_NAMES }: { lanes?: readonly Lane[] }): Promise<void> {
  const config = readConfig();
  const log = createLogger(config.logLevel);
  const url = requireDatabaseUrl(config);
  const transports = requireTransports(config);
  warnOfPublicUrl(config, log);
  const connection = connect({
    url,
    log,
    max: WORKER_CONNECTIONS,
    byKey: true,
    applicationName: workerApplicationName(),
    queryTimeoutMs: WORKER_QUERY_MS,
  });
  const worker = await startWorker({
    connection,
    log,
    templates: await loadTemplates(),
    transports,
    lanes,
    callback: config.callback,
    retentionDays: config.retentionDays,
    timing: config.timing,
    publicUrl: config.publicUrl,
    unsubscribeMailto: config.unsubscribeMailto,
  });
  await runUntilSignal(worker);
  await connection.close();
}
