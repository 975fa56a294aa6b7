// Imports: a file of any size into a list. While the body comes, its rows are checked and copied into
// import_rows, batch by batch, each in a short transaction; no connection is held in between. When it has
// ended well, merge-import.ts writes the list in one transaction. Whatever fails before leaves the list as
// it was. What a killed process leaves is swept by the reconcile task.
import { finished } from 'node:stream/promises';
import { sql } from 'kysely';
import type pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import type { Connection, Database } from '../database/connect.ts';
import { DomainError } from '../errors.ts';
import { readRows, type ImportFormat } from './import-rows.ts';
import type { GivenRow } from './import-table.ts';
import type { RejectedLine, StagedImport } from './import-twins.ts';
import { importLost, mergeImport } from './merge-import.ts';
import { quickMember } from './quick-member.ts';
import { errorText, readMember } from './read-members.ts';
import type { UpsertCounts } from './upsert-members.ts';

/** The list is locked while a merge runs, about 25 s per million: more would keep its other writers. */
export const MOST_ROWS = 2_000_000;
/** Rejected rows that are told one by one. */
export const MOST_REJECTED = 1000;
const BATCH_ROWS = 10_000;
const BATCH_CHARACTERS = 4 * 1024 * 1024;
/** Between signs of life, at most, while a body comes; ABANDONED is many of them. */
const TOUCH_EVERY_MS = 30_000;
const ABANDONED = sql`interval '15 minutes'`;

export interface ImportCounts extends UpsertCounts {
  rejected_count: number;
  /** The first 1,000. */
  rejected: RejectedLine[];
}

export interface ImportRequest {
  clientId: number;
  listKey: string;
  format: ImportFormat;
  chunks: AsyncIterable<Uint8Array>;
  /** Told when the body has ended and the list is about to be written. */
  onStaged?: (rows: number) => void;
}

/**
 * Imports a file: all of it, but for rows that are rejected, or nothing. Repeatable.
 * @throws validation_failed (the file is malformed), payload_too_large, unavailable, and what `chunks` throws
 */
export async function importMembers(
  { db, pool }: Pick<Connection, 'db' | 'pool'>,
  { clientId, listKey, format, chunks, onStaged }: ImportRequest,
): Promise<ImportCounts> {
  const { id } = await db
    .insertInto('imports')
    .values({ client_id: clientId, list_key: listKey })
    .returning('id')
    .executeTakeFirstOrThrow();
  try {
    const staged = await stageRows(pool, id, readRows(format, chunks));
    onStaged?.(staged.rows);
    const { rejected, rejected_count, ...counts } = await mergeImport(
      db,
      { id, clientId, listKey, lastLines: staged.lastLines },
      MOST_REJECTED,
    );
    return {
      ...counts,
      rejected_count: staged.rejected_count + rejected_count,
      rejected: [...staged.rejected, ...rejected]
        .sort((a, b) => a.line - b.line)
        .slice(0, MOST_REJECTED),
    };
  } finally {
    // Where this fails, too, the sweep removes them.
    await removeImport(db, id).catch(() => {});
  }
}

interface Staged extends Pick<StagedImport, 'lastLines'> {
  rows: number;
  rejected_count: number;
  rejected: RejectedLine[];
}

async function stageRows(
  pool: pg.Pool,
  importId: number,
  blocks: AsyncIterable<GivenRow[]>,
): Promise<Staged> {
  const staged: Staged = { rows: 0, rejected_count: 0, rejected: [], lastLines: [] };
  let text = '';
  let rows = 0;
  let lastLine = 0;
  let touched = Date.now();
  let copying = Promise.resolve();
  /** One batch is copied while the next is read. */
  const flush = async () => {
    await copying;
    copying = copyRows(pool, importId, text);
    copying.catch(() => {}); // told at the next flush
    if (rows > 0) staged.lastLines.push(lastLine);
    text = '';
    rows = 0;
    touched = Date.now();
  };
  try {
    for await (const block of blocks) {
      for (const given of block) {
        const row = copyLine(importId, given);
        if (typeof row === 'string') {
          text += row;
          rows += 1;
          lastLine = given.line;
          staged.rows += 1;
          if (staged.rows > MOST_ROWS) throw tooManyRows();
          if (rows >= BATCH_ROWS || text.length >= BATCH_CHARACTERS) await flush();
        } else {
          staged.rejected_count += 1;
          if (staged.rejected.length < MOST_REJECTED) staged.rejected.push(row);
        }
      }
      if (Date.now() - touched > TOUCH_EVERY_MS) await flush();
    }
    await flush();
    await copying;
    return staged;
  } finally {
    await copying.catch(() => {}); // nothing may write after us
  }
}

function tooManyRows(): DomainError {
  return new DomainError(
    'payload_too_large',
    `A file must have at most ${MOST_ROWS} rows; split it.`,
  );
}

/** The row in COPY's text format, or why it is rejected. */
function copyLine(importId: number, given: GivenRow): string | RejectedLine {
  const { line } = given;
  if ('message' in given) return { line, message: given.message };
  const read = quickMember(given.item) ?? readMember(given.item);
  if ('message' in read) return { line, message: errorText(read) };
  const { source_object_key, email, name, consent, metadata } =
    'member' in read ? read.member : read;
  // None of them has control characters, so nothing but the backslash needs a backslash.
  return (
    `${importId}\t${line}\t${escape(source_object_key)}\t${escape(email.email)}\t` +
    `${escape(email.given)}\t${typeof name === 'string' ? escape(name) : '\\N'}\t` +
    `${name === undefined ? 'f' : 't'}\t${consent ?? '\\N'}\t` +
    `${metadata === undefined ? '\\N' : escape(JSON.stringify(metadata))}\n`
  );
}

function escape(text: string): string {
  return text.includes('\\') ? text.replaceAll('\\', '\\\\') : text;
}

/** @throws unavailable where the import was swept, or lost in a crash of the database */
async function copyRows(pool: pg.Pool, importId: number, text: string): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    const { rowCount } = await client.query('update imports set touched_at = now() where id = $1', [
      importId,
    ]);
    if (rowCount === 0) throw importLost();
    if (text !== '') {
      const copy = client.query(
        copyFrom(`copy import_rows (import_id, line, source_object_key, email, email_given, name,
          has_name, consent, metadata) from stdin`),
      );
      copy.end(Buffer.from(text));
      await finished(copy);
    }
    await client.query('commit');
  } catch (error) {
    client.release(true); // and with the connection its transaction
    throw error;
  }
  client.release();
}

/** The import first: whoever writes for it then learns that it is gone. */
async function removeImport(db: Database, id: number): Promise<void> {
  await db.deleteFrom('imports').where('id', '=', id).execute();
  await db.deleteFrom('import_rows').where('import_id', '=', id).execute();
}

/** Removes what killed processes left. One that lives has touched its import, or holds its row. */
export async function sweepImports(db: Database): Promise<number> {
  const { rows } = await sql<{ id: number }>`
    delete from imports where id in (
      select id from imports where touched_at < now() - ${ABANDONED} for update skip locked)
    returning id
  `.execute(db);
  // Also rows whose import went in a sweep that did not come to this.
  await sql`
    delete from import_rows r
    where not exists (select from imports i where i.id = r.import_id)
  `.execute(db);
  return rows.length;
}
