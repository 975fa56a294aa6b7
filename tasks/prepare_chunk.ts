// Makes the messages of a chunk.
import type { Task } from 'graphile-worker';
import * as v from 'valibot';
import { ChunkRef } from '../src/queue.ts';
import { prepareChunk } from '../src/sends/prepare.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async (payload) => {
  const { db } = await runtime();
  await db.transaction().execute((trx) => prepareChunk(trx, v.parse(ChunkRef, payload)));
};

export default task;
