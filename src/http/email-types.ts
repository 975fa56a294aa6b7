// /api/v1/email-types
import { Hono } from 'hono';
import {
  deleteEmailType,
  EmailTypeInput,
  getEmailType,
  listEmailTypes,
  putEmailType,
} from '../emails-queue/email-types.ts';
import type { ApiEnv, Services } from './services.ts';
import { answer, succeeded } from './legacy-shape.ts';
import { keyParam, PAGE_QUERY, readJson, readQuery } from './request.ts';

export function emailTypes({ db }: Services) {
  const app = new Hono<ApiEnv>();

  app.put('/:email_type', async (c) => {
    const name = keyParam(c, 'email_type');
    readQuery(c, {});
    const input = await readJson(c, EmailTypeInput);
    const { emailType, created } = await db
      .transaction()
      .execute((trx) => putEmailType(trx, c.var.client.id, name, input));
    const message = `Email type ${name} ${created ? 'registered' : 'updated'}`;
    return answer(c, succeeded(message, emailType), created ? 201 : 200);
  });

  app.get('/', async (c) => {
    const page = await listEmailTypes(db, c.var.client.id, readQuery(c, PAGE_QUERY));
    const data = { email_types: page.rows, next_cursor: page.next_cursor };
    return answer(c, succeeded('Email types', data));
  });

  app.get('/:email_type', async (c) => {
    readQuery(c, {});
    const emailType = await getEmailType(db, c.var.client.id, keyParam(c, 'email_type'));
    return answer(c, succeeded(`Email type ${emailType.email_type}`, emailType));
  });

  app.delete('/:email_type', async (c) => {
    const name = keyParam(c, 'email_type');
    readQuery(c, {});
    await db.transaction().execute((trx) => deleteEmailType(trx, c.var.client.id, name));
    return answer(c, succeeded(`Email type ${name} deleted`, null));
  });

  return app;
}
