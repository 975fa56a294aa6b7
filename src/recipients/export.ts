// The active members of a list as CSV (RFC 4180) that can be imported again and then changes nothing. Read
// page by page, so a slow reader holds no connection and no transaction: members that are written
// meanwhile are in it as they were before or after. Values are verbatim.
import { sql } from 'kysely';
import type { Database } from '../database/connect.ts';
import type { Consent } from '../database/schema.ts';
import { memberConsent } from './contacts.ts';
import { findList } from './lists.ts';

const COLUMNS = ['source_object_key', 'email', 'name', 'consent', 'metadata'] as const;
const PAGE = 2000;

interface Exported {
  source_object_key: string;
  email: string;
  name: string | null;
  consent: Consent;
  /** JSON. */
  metadata: string;
}

/** Blocks of whole lines, the header first; in order of their keys. @throws not_found */
export async function exportMembers(
  db: Database,
  clientId: number,
  listKey: string,
): Promise<AsyncGenerator<string>> {
  const { id } = await findList(db, clientId, listKey);
  return blocks(db, clientId, id);
}

async function* blocks(db: Database, clientId: number, listId: number): AsyncGenerator<string> {
  yield csvLine(COLUMNS);
  for (let after = ''; ;) {
    const { rows } = await sql<Exported>`
      select m.source_object_key, c.email_given as email, m.name, ${memberConsent} as consent,
        m.metadata::text as metadata
      from list_members m join contacts c on c.client_id = m.client_id and c.id = m.contact_id
      where m.client_id = ${clientId} and m.list_id = ${listId} and m.removed_at is null
        and c.email_given is not null and m.source_object_key > ${after}
      order by m.source_object_key limit ${PAGE}
    `.execute(db);
    if (rows.length > 0)
      yield rows.map((row) => csvLine(COLUMNS.map((name) => row[name]))).join('');
    if (rows.length < PAGE) return;
    after = rows.at(-1)!.source_object_key;
  }
}

function csvLine(values: readonly (string | null)[]): string {
  return `${values.map((value) => quoted(value ?? '')).join(',')}\r\n`;
}

/** A value that begins or ends with a space is quoted, too: some readers trim it. */
function quoted(value: string): string {
  return /[",\r\n]|^\s|\s$/u.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}
