// /api/contacts
import { Hono } from 'hono';
import { ContactInput, getContact, putContact } from '../recipients/contacts.ts';
import { eraseContact } from '../recipients/erase.ts';
import type { ApiEnv, Services } from './services.ts';
import { addressParam, noQuery, readJson } from './request.ts';

export function contacts({ db }: Services) {
  const app = new Hono<ApiEnv>();

  app.put('/:email', async (c) => {
    const address = addressParam(c);
    const input = await readJson(c, ContactInput);
    const { contact, created } = await db
      .transaction()
      .execute((trx) => putContact(trx, c.var.client.id, address, input));
    return c.json({ contact }, created ? 201 : 200);
  });

  app.get('/:email', noQuery, async (c) => {
    const { contact, suppression, lists } = await getContact(db, c.var.client.id, addressParam(c));
    return c.json({ contact: { ...contact, suppression: suppression ?? null, lists } });
  });

  app.delete('/:email', async (c) => {
    await eraseContact(db, c.var.client.id, addressParam(c));
    return c.body(null, 204);
  });

  return app;
}
