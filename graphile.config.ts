// For the graphile-worker command line: the same database and the same tasks as our own workers.
import 'graphile-worker'; // for its part of the global type GraphileConfig
import { fileURLToPath } from 'node:url';
import { readConfig } from './src/config.ts';

// In a clone the tasks are TypeScript, and the templates behind them are TSX.
if (import.meta.url.endsWith('.ts')) (await import('tsx/esm/api')).register();

const preset: GraphileConfig.Preset = {
  worker: {
    connectionString: readConfig().databaseUrl,
    taskDirectory: fileURLToPath(new URL('tasks', import.meta.url)),
    fileExtensions: ['.ts', '.js'],
  },
};

export default preset;
