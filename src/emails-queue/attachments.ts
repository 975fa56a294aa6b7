// Attached files: each content stored once per client, under its hash, and read back byte for byte.
import { readFile } from 'node:fs/promises';
import { sql } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import type { MessageRef } from '../queue.ts';
import type { Attachment } from '../smtp/compose.ts';

/** A checked file on disk. */
export interface NewAttachment {
  /** As the recipient sees it. */
  name: string;
  contentType: string;
  path: string;
  sha256: Buffer;
}

/** Stores the files of an email, one at a time in memory. */
export async function storeAttachments(
  trx: Trx,
  { client_id, message_id }: MessageRef,
  files: readonly NewAttachment[],
): Promise<void> {
  if (files.length === 0) return;
  // In the order of their hashes: two emails with the same files never wait for each other in a ring.
  for (const { path, sha256 } of files.toSorted((a, b) => Buffer.compare(a.sha256, b.sha256))) {
    await trx
      .insertInto('attachment_contents')
      .values({ client_id, sha256, content: await readFile(path) })
      // Touched, not skipped: the row's lock keeps it from being purged before this commit.
      .onConflict((conflict) =>
        conflict.columns(['client_id', 'sha256']).doUpdateSet({ created_at: sql`now()` }),
      )
      .execute();
  }
  await trx
    .insertInto('message_attachments')
    .values(
      files.map(({ name, contentType, sha256 }, ordinal) => ({
        client_id,
        message_id,
        ordinal,
        filename: name,
        content_type: contentType,
        sha256,
      })),
    )
    .execute();
}

export async function readAttachments(
  db: Database,
  { client_id, message_id }: MessageRef,
): Promise<Attachment[]> {
  const rows = await db
    .selectFrom('message_attachments as a')
    .innerJoin('attachment_contents as c', (join) =>
      join.onRef('c.client_id', '=', 'a.client_id').onRef('c.sha256', '=', 'a.sha256'),
    )
    .select(['a.filename', 'a.content_type', 'c.content'])
    .where('a.client_id', '=', client_id)
    .where('a.message_id', '=', message_id)
    .orderBy('a.ordinal')
    .execute();
  return rows.map(({ filename, content_type, content }) => ({
    name: filename,
    contentType: content_type,
    content,
  }));
}
