// Says which thread renders it; throws, or ends its thread, when told to.
import { threadId } from 'node:worker_threads';
import * as v from 'valibot';
import { defineTemplate } from '../../../src/templates/define.ts';

export const template = defineTemplate({
  category: 'transactional',
  subject: () => 'Threads',
  sharedSchema: v.strictObject({}),
  recipientSchema: v.strictObject({ name: v.string() }),
  sample: { shared: {}, recipient: { name: 'Ada' } },
  component: ({ recipient: { name } }) => {
    if (name === 'throw') throw new Error('picky');
    if (name === 'end the thread' && threadId > 0) process.exit();
    return (
      <html>
        <body>
          {name} on thread {threadId}
        </body>
      </html>
    );
  },
});
