// /api/recipient-lists/{key}/members
import { Hono } from 'hono';
import * as v from 'valibot';
import { findList } from '../recipients/lists.ts';
import {
  listMembers,
  MemberInput,
  putMember,
  readMembers,
  removeMember,
  upsertMembers,
} from '../recipients/members.ts';
import type { ApiEnv, Services } from './services.ts';
import { keyParam, MIB, PAGE_QUERY, readJson, readQuery } from './request.ts';

const MOST_MEMBERS = 10_000;
const BulkInput = v.strictObject({
  members: v.pipe(
    v.array(v.unknown()),
    v.maxLength(MOST_MEMBERS, `must have at most ${MOST_MEMBERS} members; split the call`),
  ),
});

export function members({ db }: Services) {
  const app = new Hono<ApiEnv>();

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

  app.put('/:source_object_key', async (c) => {
    const key = keyParam(c, 'key');
    const source_object_key = keyParam(c, 'source_object_key');
    const input = await readJson(c, MemberInput);
    const { member, created } = await db
      .transaction()
      .execute((trx) => putMember(trx, c.var.client.id, key, { source_object_key, ...input }));
    return c.json({ member }, created ? 201 : 200);
  });

  app.delete('/:source_object_key', async (c) => {
    const key = keyParam(c, 'key');
    const member = keyParam(c, 'source_object_key');
    await db.transaction().execute((trx) => removeMember(trx, c.var.client.id, key, member));
    return c.body(null, 204);
  });

  return app;
}
