// /api/messages and /api/sends/{id}/messages
import { Hono } from 'hono';
import * as v from 'valibot';
import { MESSAGE_STATES } from '../database/schema.ts';
import { getMessage, listMessagesOfSend, listMessagesTo } from '../messages/messages.ts';
import { RESOLUTIONS, resolveMessage } from '../messages/resolve.ts';
import { getSend } from '../sends/sends.ts';
import type { ApiEnv, Services } from './services.ts';
import { idParam, noQuery, PAGE_QUERY, readAddress, readJson, readQuery } from './request.ts';

const ResolveInput = v.strictObject({
  outcome: v.picklist(RESOLUTIONS, `must be one of ${RESOLUTIONS.join(', ')}`),
});

export function messages({ db }: Services) {
  const app = new Hono<ApiEnv>();

  app.get('/sends/:id/messages', async (c) => {
    const { state, ...request } = readQuery(c, {
      ...PAGE_QUERY,
      state: v.optional(v.picklist(MESSAGE_STATES, `must be one of ${MESSAGE_STATES.join(', ')}`)),
    });
    const send = await getSend(db, c.var.client.id, idParam(c, 'The send'));
    const page = await listMessagesOfSend(db, c.var.client.id, send.id, state, request);
    return c.json({ messages: page.rows, next_cursor: page.next_cursor });
  });

  app.get('/messages', async (c) => {
    const { email, ...request } = readQuery(c, { ...PAGE_QUERY, email: v.string() });
    const page = await listMessagesTo(db, c.var.client.id, readAddress(email, 'email'), request);
    return c.json({ messages: page.rows, next_cursor: page.next_cursor });
  });

  app.get('/messages/:id', noQuery, async (c) => {
    const message = await getMessage(db, c.var.client.id, idParam(c, 'The message'));
    return c.json({ message });
  });

  app.post('/messages/:id/resolve', async (c) => {
    const id = idParam(c, 'The message');
    const { outcome } = await readJson(c, ResolveInput);
    const message = await db.transaction().execute(async (trx) => {
      await resolveMessage(trx, c.var.client.id, id, outcome);
      return getMessage(trx, c.var.client.id, id);
    });
    return c.json({ message });
  });

  return app;
}
