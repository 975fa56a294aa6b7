// Command work of the build, with every template on its full path: rendered anew for each member.
import { rootFile } from '../../src/root.ts';

type Work = typeof import('../../src/commands/work.ts');
type Processes = typeof import('../../src/commands/processes.ts');
type Log = typeof import('../../src/log.ts');

const built = (file: string) => import(rootFile(`dist/src/${file}.js`));

const [, , , flag, processes] = process.argv; // work --processes N
if (flag === undefined) {
  const { work }: Work = await built('commands/work');
  await work({ rendering: 'full' });
} else {
  const { runProcesses }: Processes = await built('commands/processes');
  const { createLogger }: Log = await built('log');
  await runProcesses(Number(processes), ['work'], createLogger('error'));
}
process.exit(0);
