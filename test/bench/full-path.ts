// Command work, with every template on its full path: rendered anew for each member.
import { runProcesses } from '../../src/commands/processes.ts';
import { runUntilSignal } from '../../src/commands/signals.ts';
import { readConfig, requireDatabaseUrl, requireTransports } from '../../src/config.ts';
import { connect } from '../../src/database/connect.ts';
import { createLogger } from '../../src/log.ts';
import { loadTemplates } from '../../src/templates/registry.ts';
import { workerApplicationName } from '../../src/worker/liveness.ts';
import { startWorker, WORKER_CONNECTIONS, WORKER_QUERY_MS } from '../../src/worker/worker.ts';

const OPTIONS = { rendering: 'full' } as const;

const [, , , flag, processes] = process.argv; // work --processes N
if (flag === undefined) await work();
else await runProcesses(Number(processes), ['work'], createLogger(readConfig().logLevel));
process.exit(0);

async function work(): Promise<void> {
  const config = readConfig();
  const log = createLogger(config.logLevel);
  const connection = connect({
    url: requireDatabaseUrl(config),
    log,
    max: WORKER_CONNECTIONS,
    applicationName: workerApplicationName(),
    queryTimeoutMs: WORKER_QUERY_MS,
  });
  const worker = await startWorker({
    connection,
    log,
    templates: await loadTemplates(),
    transports: requireTransports(config),
    callback: config.callback,
    timing: config.timing,
    publicUrl: config.publicUrl,
    ...OPTIONS,
  });
  await runUntilSignal(worker);
  await connection.close();
}
