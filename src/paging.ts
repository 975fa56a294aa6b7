// Keyset paging: a page is read by "after this key", never by an offset, so that row one million
// costs what row one costs. A cursor is the last row's key, opaque to callers.
import * as v from 'valibot';
import { invalid } from './errors.ts';

export const DEFAULT_LIMIT = 100;
export const MAX_LIMIT = 1000;

export interface PageRequest {
  cursor?: string | undefined;
  limit?: number | undefined;
}

export interface Page<Row> {
  rows: Row[];
  /** Of the next page; null on the last. */
  next_cursor: string | null;
}

type KeySchema = v.GenericSchema<unknown, string | number>;
type KeyOf<Schemas extends KeySchema[]> = {
  [Index in keyof Schemas]: v.InferOutput<Schemas[Index]>;
};

/**
 * Reads one page. `read` gets the key of the row to start after (undefined for the first page) and
 * how many rows to read, in key order; `keyOf` gives a row's key, shaped by `schemas`.
 * @throws validation_failed for a cursor that is not one of ours
 */
export async function page<Row, const Schemas extends KeySchema[]>(
  { cursor, limit = DEFAULT_LIMIT }: PageRequest,
  schemas: Schemas,
  keyOf: (row: Row) => KeyOf<Schemas>,
  read: (after: KeyOf<Schemas> | undefined, limit: number) => Promise<Row[]>,
): Promise<Page<Row>> {
  const after = cursor === undefined ? undefined : decode(cursor, schemas);
  // One row more than asked for tells whether there is a next page.
  const rows = await read(after, limit + 1);
  if (rows.length <= limit) return { rows, next_cursor: null };
  const shown = rows.slice(0, limit);
  return { rows: shown, next_cursor: encode(keyOf(shown.at(-1)!)) };
}

function encode(key: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url');
}

function decode<Schemas extends KeySchema[]>(cursor: string, schemas: Schemas): KeyOf<Schemas> {
  try {
    const bytes = Buffer.from(cursor, 'base64url');
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    const key = v.parse(v.strictTuple(schemas as never), JSON.parse(text)) as KeyOf<Schemas>;
    // Only what encode makes: no other spelling, and nothing PostgreSQL cannot compare with.
    const storable = key.every((part) => typeof part === 'number' || isStorable(part));
    if (storable && encode(key) === cursor) return key;
  } catch {
    // not base64url, not UTF-8, not JSON or not such a key: told below
  }
  throw invalid([{ path: 'cursor', message: 'must be a next_cursor of an earlier answer' }]);
}

function isStorable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\u0000');
}
