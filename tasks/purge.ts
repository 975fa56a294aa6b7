// Deletes what is older than RETENTION_DAYS. Scheduled every minute.
import type { Task } from 'graphile-worker';
import { purgeOld } from '../src/sends/purge.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async () => {
  const { db, retentionDays, stopping } = await runtime();
  if (retentionDays !== undefined) await purgeOld(db, retentionDays, stopping);
};

export default task;
