// /api/messages and /api/sends/{id}/messages
import { Hono } from 'hono';
import * as v from 'valibot';
import { MESSAGE_STATES } from '../database/schema.ts';
import { getMessage, listMessagesOfSend, listMessagesTo } from '../messages/messages.ts';
import { getSend } from '../sends/sends.ts';
import type { ApiEnv, Services } from './services.ts';
import { idParam, noQuery, PAGE_QUERY, readAddress, readQuery } from './request.ts';

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

  return app;
}
