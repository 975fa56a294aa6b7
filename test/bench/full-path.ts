// Command work, with every template on its full path: rendered anew for each member.
import { runProcesses } from '../../src/commands/processes.ts';
import { runUntilSignal } from '../../src/commands/signals.ts';
import { readConfig, requireDatabaseUrl, requireTransports } from '../../src/config.ts';
import { createLogger } from '../../src/log.ts';
import { loadTemplates } from '../../src/templates/registry.ts';
import { connectWorker, startWorker } from '../../src/worker/worker.ts';

const OPTIONS = { rendering: 'full' } as const;

const [, , , flag, processes] = process.argv; // work --processes N
if (flag === undefined) await work();
else await runProcesses(Number(processes), ['work'], createLogger(readConfig().logLevel));
process.exit(0);

async function work(): Promise<void> {
  const config = readConfig();
  const log = createLogger(config.logLevel);
  const connection = connectWorker(requireDatabaseUrl(config), log);
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
