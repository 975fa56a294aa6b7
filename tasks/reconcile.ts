// Adds the jobs that are missing. Scheduled every minute.
import type { Task } from 'graphile-worker';
import { reconcile } from '../src/sends/wake.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async () => {
  const { db, log } = await runtime();
  const added = await reconcile(db);
  if (added > 0) log.warn({ added }, 'missing jobs were added');
};

export default task;
