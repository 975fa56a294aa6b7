// Command work of the build, with every template on its full path: rendered anew for each member.
import { rootFile } from '../../src/root.ts';

const built = (file: string) => import(rootFile(`dist/src/${file}`));
const { runProcesses }: typeof import('../../src/commands/processes.ts') =
  await built('commands/processes.js');
const { runUntilSignal }: typeof import('../../src/commands/signals.ts') =
  await built('commands/signals.js');
const { readConfig, requireDatabaseUrl, requireTransports }: typeof import('../../src/config.ts') =
  await built('config.js');
const { createLogger }: typeof import('../../src/log.ts') = await built('log.js');
const { loadTemplates }: typeof import('../../src/templates/registry.ts') =
  await built('templates/registry.js');
const { connectWorker, startWorker }: typeof import('../../src/worker/worker.ts') =
  await built('worker/worker.js');

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
