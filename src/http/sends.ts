// /api/recipient-lists/{key}/send and /api/sends
import { Hono } from 'hono';
import * as v from 'valibot';
import { SEND_STATES } from '../database/schema.ts';
import { triggerSend } from '../sends/create.ts';
import { cancelSend, pauseSend, resumeSend, retryFailed } from '../sends/control.ts';
import { SendInput } from '../sends/send-input.ts';
import { getSend, getSendByKey, listSends } from '../sends/sends.ts';
import type { ApiEnv, Services } from './services.ts';
import {
  idParam,
  keyParam,
  MIB,
  noQuery,
  PAGE_QUERY,
  readJson,
  readOptionalJson,
  readQuery,
  sendKeyParam,
} from './request.ts';

const NothingInput = v.strictObject({});

const CONTROLS = { pause: pauseSend, resume: resumeSend, cancel: cancelSend } as const;

export function sends(services: Services) {
  const { db } = services;
  const app = new Hono<ApiEnv>();

  app.post('/recipient-lists/:key/send', async (c) => {
    const key = keyParam(c, 'key');
    const input = await readJson(c, SendInput, 32 * MIB);
    const { send_id, replayed } = await triggerSend(db, services, c.var.client, key, input);
    const send = await getSend(db, c.var.client.id, send_id);
    c.header('location', `/api/sends/${send_id}`);
    return c.json({ send, replayed }, replayed ? 200 : 202);
  });

  app.get('/sends', async (c) => {
    const { list_key, state, ...request } = readQuery(c, {
      ...PAGE_QUERY,
      list_key: v.optional(v.string()),
      state: v.optional(v.picklist(SEND_STATES, `must be one of ${SEND_STATES.join(', ')}`)),
    });
    const page = await listSends(db, c.var.client.id, { list_key, state }, request);
    return c.json({ sends: page.rows, next_cursor: page.next_cursor });
  });

  app.get('/sends/by-key/:send_key', noQuery, async (c) => {
    const send = await getSendByKey(db, c.var.client.id, sendKeyParam(c));
    return c.json({ send });
  });

  app.get('/sends/:id', noQuery, async (c) => {
    const send = await getSend(db, c.var.client.id, idParam(c, 'The send'));
    return c.json({ send });
  });

  for (const [action, control] of Object.entries(CONTROLS)) {
    app.post(`/sends/:id/${action}`, async (c) => {
      const ref = { client_id: c.var.client.id, send_id: idParam(c, 'The send') };
      await readOptionalJson(c, NothingInput);
      await db.transaction().execute((trx) => control(trx, ref));
      return c.json({ send: await getSend(db, ref.client_id, ref.send_id) });
    });
  }

  app.post('/sends/:id/retry-failed', async (c) => {
    const ref = { client_id: c.var.client.id, send_id: idParam(c, 'The send') };
    await readOptionalJson(c, NothingInput);
    const retried = await retryFailed(db, ref);
    return c.json({ send: await getSend(db, ref.client_id, ref.send_id), retried });
  });

  return app;
}
