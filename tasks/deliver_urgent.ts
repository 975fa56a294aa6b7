// Delivers one single email at once.
import type { Task } from 'graphile-worker';
import * as v from 'valibot';
import { deliverUrgent } from '../src/messages/deliver-single.ts';
import { MessageRef } from '../src/queue.ts';
import { runtime } from '../src/worker/runtime.ts';

const task: Task = async (payload) => deliverUrgent(await runtime(), v.parse(MessageRef, payload));

export default task;
