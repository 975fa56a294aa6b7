// Deletes what nobody may keep: older than RETENTION_DAYS, left by erasures and abandoned imports. Scheduled
// every minute.
import type { Task } from 'graphile-worker';
import { sweepErased } from '../src/recipients/erase.ts';
import { sweepImports } from '../src/recipients/import.ts';
import { purgeOld } from '../src/sends/purge.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async () => {
  const { db, retentionDays, stopping } = await runtime();
  await sweepImports(db);
  await sweepErased(db);
  if (retentionDays !== undefined) await purgeOld(db, retentionDays, stopping);
};

export default task;
