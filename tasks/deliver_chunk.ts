// Delivers what is due in a chunk.
import type { Task } from 'graphile-worker';
import * as v from 'valibot';
import { deliverChunk } from '../src/messages/deliver-chunk.ts';
import { ChunkRef } from '../src/queue.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async (payload) => deliverChunk(await runtime(), v.parse(ChunkRef, payload));

export default task;
