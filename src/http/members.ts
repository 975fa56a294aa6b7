// /api/recipient-lists/{key}/members
import { Hono } from 'hono';
import * as v from 'valibot';
import { importMembers } from '../recipients/import.ts';
import { getMessage } from '../messages/messages.ts';
import { askToConfirm, ConfirmationInput } from '../recipients/confirmation.ts';
import { findList } from '../recipients/lists.ts';
import { listMembers, putMember, removeMember } from '../recipients/members.ts';
import { MemberInput, readMembers } from '../recipients/read-members.ts';
import { reconcileMembers } from '../recipients/reconcile.ts';
import { upsertMembers } from '../recipients/upsert-members.ts';
import { importFormat, withBody } from './files.ts';
import type { ApiEnv, Services } from './services.ts';
import { UploadGate } from './upload-gate.ts';
import { keyParam, MIB, PAGE_QUERY, readJson, readOptionalJson, readQuery } from './request.ts';

const BulkInput = v.strictObject({ members: membersUpTo(10_000) });
const ReconcileInput = v.strictObject({
  members: membersUpTo(50_000),
  remove_absent: v.optional(v.boolean()),
  dry_run: v.optional(v.boolean()),
});
/** Imports read at once; each takes a few MiB, and a connection a batch. */
const IMPORTED_AT_ONCE = { places: 4, perClient: 2, longestLine: 50 };

function membersUpTo(most: number) {
  return v.pipe(
    v.array(v.unknown()),
    v.maxLength(most, `must have at most ${most} members; split the call`),
  );
}

export function members({ db, pool, templates }: Services) {
  const app = new Hono<ApiEnv>();
  const importing = new UploadGate(IMPORTED_AT_ONCE);

  app.get('/', async (c) => {
    const { status, ...request } = readQuery(c, {
      ...PAGE_QUERY,
      status: v.optional(v.picklist(['active', 'removed'], 'must be active or removed'), 'active'),
    });
    const { id } = await findList(db, c.var.client.id, keyParam(c, 'key'));
    const page = await listMembers(db, c.var.client.id, id, status, request);
    return c.json({ members: page.rows, next_cursor: page.next_cursor });
  });

  app.post('/bulk-upsert', async (c) => {
    const key = keyParam(c, 'key');
    const input = await readJson(c, BulkInput, 32 * MIB, { unchecked: 'members' });
    const { members, rejected } = readMembers(input.members);
    const counts = await db
      .transaction()
      .execute((trx) => upsertMembers(trx, c.var.client.id, key, members));
    return c.json({ ...counts, rejected });
  });

  app.post('/reconcile', async (c) => {
    const key = keyParam(c, 'key');
    const input = await readJson(c, ReconcileInput, 32 * MIB, { unchecked: 'members' });
    return c.json(await reconcileMembers(db, c.var.client.id, key, input));
  });

  app.post('/import', async (c) => {
    const listKey = keyParam(c, 'key');
    const clientId = c.var.client.id;
    const counts = await withBody(c, (chunks) => {
      const format = importFormat(c);
      const work = () => importMembers({ db, pool }, { clientId, listKey, format, chunks });
      return importing.run(c.req.raw.signal, work, clientId);
    });
    return c.json(counts);
  });

  app.put('/:source_object_key', async (c) => {
    const key = keyParam(c, 'key');
    const source_object_key = keyParam(c, 'source_object_key');
    const input = await readJson(c, MemberInput);
    const { member, created } = await db
      .transaction()
      .execute((trx) => putMember(trx, c.var.client.id, key, { source_object_key, ...input }));
    return c.json({ member }, created ? 201 : 200);
  });

  app.post('/:source_object_key/confirmation', async (c) => {
    const { client } = c.var;
    const key = keyParam(c, 'key');
    const member = keyParam(c, 'source_object_key');
    const input = await readOptionalJson(c, ConfirmationInput);
    const id = await db
      .transaction()
      .execute((trx) => askToConfirm(trx, templates, client.id, key, member, input));
    c.header('location', `/api/messages/${id}`);
    return c.json({ message: await getMessage(db, client.id, id) }, 202);
  });

  app.delete('/:source_object_key', async (c) => {
    const key = keyParam(c, 'key');
    const member = keyParam(c, 'source_object_key');
    await db.transaction().execute((trx) => removeMember(trx, c.var.client.id, key, member));
    return c.body(null, 204);
  });

  return app;
}
