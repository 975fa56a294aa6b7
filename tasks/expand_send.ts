// Cuts a send's snapshot into chunks.
import type { Task } from 'graphile-worker';
import * as v from 'valibot';
import { SendRef } from '../src/queue.ts';
import { expandSend } from '../src/sends/expand.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async (payload) => {
  const { db } = await runtime();
  await db.transaction().execute((trx) => expandSend(trx, v.parse(SendRef, payload)));
};

export default task;
