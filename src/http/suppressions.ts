// /api/suppressions
import { Hono } from 'hono';
import {
  deleteSuppression,
  listSuppressions,
  putSuppression,
  SuppressionInput,
} from '../recipients/suppressions.ts';
import type { ApiEnv, Services } from './services.ts';
import { addressParam, PAGE_QUERY, readJson, readQuery } from './request.ts';

export function suppressions({ db }: Services) {
  const app = new Hono<ApiEnv>();

  app.put('/:email', async (c) => {
    const address = addressParam(c);
    const input = await readJson(c, SuppressionInput);
    const { suppression, created } = await db
      .transaction()
      .execute((trx) => putSuppression(trx, c.var.client.id, address, input));
    return c.json({ suppression }, created ? 201 : 200);
  });

  app.get('/', async (c) => {
    const page = await listSuppressions(db, c.var.client.id, readQuery(c, PAGE_QUERY));
    return c.json({ suppressions: page.rows, next_cursor: page.next_cursor });
  });

  app.delete('/:email', async (c) => {
    const address = addressParam(c);
    await db.transaction().execute((trx) => deleteSuppression(trx, c.var.client.id, address));
    return c.body(null, 204);
  });

  return app;
}
