// Delivers single emails of normal and low priority until none is due.
import type { Task } from 'graphile-worker';
import { deliverSingles } from '../src/messages/deliver-single.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async () => deliverSingles(await runtime());

export default task;
