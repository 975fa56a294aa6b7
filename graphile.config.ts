// For the graphile-worker command line: the same database, the same tasks as our own workers.
// Without WorkerPreset, whose task loader would look for the tasks a second time.
import 'graphile-worker'; // for its part of the global type GraphileConfig
import { fileURLToPath } from 'node:url';
import { readConfig } from './src/config.ts';

const preset: GraphileConfig.Preset = {
  worker: {
    connectionString: readConfig().databaseUrl,
    taskDirectory: fileURLToPath(new URL('tasks', import.meta.url)),
    fileExtensions: ['.ts', '.js'],
  },
};

export default preset;
