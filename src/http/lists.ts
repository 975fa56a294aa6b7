// /api/recipient-lists
import { Hono } from 'hono';
import { askPendingMembers } from '../recipients/confirmations.ts';
import { ConfirmationInput } from '../recipients/confirmation.ts';
import {
  countActiveMembers,
  deleteList,
  findList,
  ListInput,
  listLists,
  putList,
} from '../recipients/lists.ts';
import { exportMembers } from '../recipients/export.ts';
import { csvResponse } from './files.ts';
import type { ApiEnv, Services } from './services.ts';
import { keyParam, noQuery, PAGE_QUERY, readJson, readOptionalJson, readQuery } from './request.ts';

export function lists({ db, templates }: Services) {
  const app = new Hono<ApiEnv>();

  app.get('/', async (c) => {
    const page = await listLists(db, c.var.client.id, readQuery(c, PAGE_QUERY));
    return c.json({ recipient_lists: page.rows, next_cursor: page.next_cursor });
  });

  app.put('/:key', async (c) => {
    const key = keyParam(c, 'key');
    const input = await readJson(c, ListInput);
    const { list, created } = await db
      .transaction()
      .execute((trx) => putList(trx, c.var.client.id, key, input));
    return c.json({ recipient_list: list }, created ? 201 : 200);
  });

  app.get('/:key', noQuery, async (c) => {
    const { id, list } = await findList(db, c.var.client.id, keyParam(c, 'key'));
    const active_members = await countActiveMembers(db, c.var.client.id, id);
    return c.json({ recipient_list: { ...list, active_members } });
  });

  app.get('/:key/members.csv', noQuery, async (c) => {
    const blocks = await exportMembers(db, c.var.client.id, keyParam(c, 'key'));
    return csvResponse(c, 'members.csv', blocks);
  });

  app.post('/:key/confirmations', async (c) => {
    const { client } = c.var;
    const key = keyParam(c, 'key');
    const input = await readOptionalJson(c, ConfirmationInput);
    const asked = await db
      .transaction()
      .execute((trx) => askPendingMembers(trx, templates, client.id, key, input));
    return c.json(asked, 202);
  });

  app.delete('/:key', async (c) => {
    const key = keyParam(c, 'key');
    await db.transaction().execute((trx) => deleteList(trx, c.var.client.id, key));
    return c.body(null, 204);
  });

  return app;
}
