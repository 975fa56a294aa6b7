// What stands twice in a file to import. A file may be larger than memory, so this is found out in the
// database, where its rows wait.
import { sql } from 'kysely';
import type { Database } from '../database/connect.ts';

export interface RejectedLine {
  line: number;
  message: string;
}

export interface StagedImport {
  id: number;
  clientId: number;
  listKey: string;
  /** Of each batch that was copied, ascending. */
  lastLines: number[];
}

const TWINS_PER_PAGE = 5000;

/**
 * Rejects rows whose key or address stands on an earlier line that is taken, by the rule of bulk-upsert.
 * That rule goes from row to row; only what stands twice at all is looked at so, a page at a time.
 */
export async function rejectTwins(
  db: Database,
  staged: StagedImport,
  mostRejected: number,
): Promise<{ rejected_count: number; rejected: RejectedLine[] }> {
  const rejected: RejectedLine[] = [];
  let rejected_count = 0;
  await markTwins(db, staged);
  for (let after = 0; ;) {
    const twins = await readTwins(db, staged, after);
    const keys = new Map<string, number>();
    const emails = new Map<string, number>();
    const lines: number[] = [];
    for (const { line, source_object_key, email, key_line, email_line } of twins) {
      const keyTwin = key_line ?? keys.get(source_object_key);
      const twin = keyTwin ?? email_line ?? emails.get(email);
      if (twin === undefined) {
        keys.set(source_object_key, line);
        emails.set(email, line);
        continue;
      }
      lines.push(line);
      const what = keyTwin === undefined ? 'email' : 'source_object_key';
      if (rejected.length < mostRejected)
        rejected.push({ line, message: `${what}: stands already on line ${twin} of this file` });
    }
    if (lines.length > 0) await deleteTwins(db, staged, lines);
    rejected_count += lines.length;
    if (twins.length < TWINS_PER_PAGE) return { rejected_count, rejected };
    after = twins.at(-1)!.line;
  }
}

async function markTwins(db: Database, { id }: StagedImport): Promise<void> {
  await db.transaction().execute(async (trx) => {
    await sql`set local work_mem = '64MB'`.execute(trx);
    // Without a join, so that what the planner believes of a table that fills and empties does not matter.
    for (const column of [sql.ref('source_object_key'), sql.ref('email')]) {
      const { rows } = await sql`
        select from import_rows where import_id = ${id}
        group by ${column} having count(*) > 1 limit 1
      `.execute(trx);
      if (rows.length === 0) continue;
      await sql`
        update import_rows set is_twin = true
        where not is_twin and ctid = any (array(
          select place from (
            select ctid as place, count(*) over (partition by ${column}) as times
            from import_rows where import_id = ${id}
          ) counted
          where times > 1
        ))
      `.execute(trx);
    }
  });
}

interface Twin {
  line: number;
  source_object_key: string;
  email: string;
  /** Lines of earlier pages; what is still there was taken. */
  key_line: number | null;
  email_line: number | null;
}

async function readTwins(db: Database, { id }: StagedImport, after: number): Promise<Twin[]> {
  const earlier = (column: string) => sql`(
    select e.line from import_rows e
    where e.import_id = ${id} and e.is_twin and e.line <= ${after} and ${sql.ref(`e.${column}`)} = ${sql.ref(`r.${column}`)}
    order by e.line limit 1)`;
  const { rows } = await sql<Twin>`
    select r.line, r.source_object_key, r.email, ${earlier('source_object_key')} as key_line,
      ${earlier('email')} as email_line
    from import_rows r
    where r.import_id = ${id} and r.is_twin and r.line > ${after}
    order by r.line limit ${TWINS_PER_PAGE}
  `.execute(db);
  return rows;
}

async function deleteTwins(db: Database, { id }: StagedImport, lines: number[]): Promise<void> {
  await sql`
    delete from import_rows where import_id = ${id} and line = any (${lines}::integer[])
  `.execute(db);
}
