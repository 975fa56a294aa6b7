// Fetches personal contexts from a client until none is due.
import type { Task } from 'graphile-worker';
import * as v from 'valibot';
import { FetchRef } from '../src/queue.ts';
import { fetchContexts } from '../src/sends/fetch-contexts.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async (payload) => fetchContexts(await runtime(), v.parse(FetchRef, payload));

export default task;
