// Adds the jobs of everything that has come due. Workers also do this every second by themselves.
import type { Task } from 'graphile-worker';
import { wakeDue } from '../src/sends/wake.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async () => {
  await wakeDue((await runtime()).db);
};

export default task;
