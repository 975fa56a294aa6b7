// /api/senders
import { Hono } from 'hono';
import {
  deleteSender,
  listSenders,
  putSender,
  SenderInput,
  type Sender,
} from '../clients/senders.ts';
import type { ApiEnv, Services } from './services.ts';
import { keyParam, PAGE_QUERY, readJson, readQuery } from './request.ts';

export function senders({ db }: Services) {
  const app = new Hono<ApiEnv>();

  app.put('/:id', async (c) => {
    const id = keyParam(c, 'id');
    const input = await readJson(c, SenderInput);
    const { sender, created } = await db
      .transaction()
      .execute((trx) => putSender(trx, c.var.client.id, id, input));
    return c.json({ sender: senderBody(sender) }, created ? 201 : 200);
  });

  app.get('/', async (c) => {
    const page = await listSenders(db, c.var.client.id, readQuery(c, PAGE_QUERY));
    return c.json({ senders: page.rows.map(senderBody), next_cursor: page.next_cursor });
  });

  app.delete('/:id', async (c) => {
    const id = keyParam(c, 'id');
    await db.transaction().execute((trx) => deleteSender(trx, c.var.client.id, id));
    return c.body(null, 204);
  });

  return app;
}

function senderBody({ is_default, ...sender }: Sender) {
  return { ...sender, default: is_default };
}
