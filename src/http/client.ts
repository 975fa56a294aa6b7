// /api/client: settings of the client itself.
import { Hono } from 'hono';
import {
  ContextCallbackInput,
  getContextCallback,
  putContextCallback,
} from '../clients/context-callback.ts';
import type { ApiEnv, Services } from './services.ts';
import { noQuery, readJson } from './request.ts';

export function client({ db, callback }: Services) {
  const app = new Hono<ApiEnv>();

  app.get('/context-callback', noQuery, async (c) =>
    c.json({ context_callback: await getContextCallback(db, c.var.client.id) }),
  );

  app.put('/context-callback', async (c) => {
    const input = await readJson(c, ContextCallbackInput);
    const stored = await db
      .transaction()
      .execute((trx) => putContextCallback(trx, c.var.client.id, input, callback));
    return c.json({ context_callback: stored });
  });

  return app;
}
