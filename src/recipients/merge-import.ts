// The end of an import: its rows, all of them checked and in import_rows, go into the list in one
// transaction, so that a trigger, a crash or a caller never sees half of them. Contacts are made before,
// in short transactions: one that fails later leaves people who are in no list. While the members are
// written the list is locked for its other writers, about 25 s per million rows.
import { sql, type RawBuilder } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import { DomainError } from '../errors.ts';
import { rejectTwins, type RejectedLine, type StagedImport } from './import-twins.ts';
import { lockList } from './lists.ts';
import { joinContact, upsertContacts, writeMembers, type UpsertCounts } from './upsert-members.ts';

/** Batches of one statement, so that none comes near the timeout of a query. */
const BATCHES_PER_STATEMENT = 5;

/** @throws unavailable where the import is gone */
export async function mergeImport(
  db: Database,
  staged: StagedImport,
  mostRejected: number,
): Promise<UpsertCounts & { rejected_count: number; rejected: RejectedLine[] }> {
  // To its statistics the table may be as empty as the last import left it: a join planned for that, over a
  // million rows, outlasts the timeout of a query.
  await sql`analyze import_rows`.execute(db);
  const twins = await rejectTwins(db, staged, mostRejected);
  const ranges = rangesOf(staged.lastLines);
  for (;;) {
    for (const range of ranges) {
      await db
        .transaction()
        .execute((trx) => upsertContacts(trx, staged.clientId, rowsOf(staged, range)));
    }
    const counts = await mergeMembers(db, staged, ranges);
    // Where a person was erased meanwhile, their contact is made again.
    if (counts) return { ...counts, ...twins };
  }
}

type Range = [first: number, last: number];

function rangesOf(lastLines: number[]): Range[] {
  const ranges: Range[] = [];
  for (let at = 0; at < lastLines.length; at += BATCHES_PER_STATEMENT) {
    const last = lastLines[Math.min(at + BATCHES_PER_STATEMENT, lastLines.length) - 1]!;
    ranges.push([(ranges.at(-1)?.[1] ?? 0) + 1, last]);
  }
  return ranges;
}

/** As the table `r` of a statement. */
function rowsOf({ id }: StagedImport, [first, last]: Range): RawBuilder<unknown> {
  return sql`(
    select * from import_rows where import_id = ${id} and line between ${first} and ${last}
  ) r`;
}

/** undefined, and nothing written, where a contact has gone since it was made. */
async function mergeMembers(
  db: Database,
  staged: StagedImport,
  ranges: Range[],
): Promise<UpsertCounts | undefined> {
  const { clientId, listKey } = staged;
  const gone = Symbol('a contact has gone');
  try {
    return await db.transaction().execute(async (trx) => {
      await holdImport(trx, staged);
      const list = await lockList(trx, clientId, listKey);
      if (!list.created && (await hasMembers(trx, clientId, list.id))) {
        for (const range of ranges) await removeSuperseded(trx, staged, list.id, range);
      }
      const counts = { created: 0, updated: 0, unchanged: 0 };
      for (const range of ranges) {
        const rows = rowsOf(staged, range);
        const written = await writeMembers(trx, clientId, list.id, {
          rows,
          carried: sql`r.carried_consent`,
        });
        const { rows: total } = await sql<{ count: number }>`
          select count(*) from ${rows}
        `.execute(trx);
        if (written.matched < total[0]!.count) throw gone;
        counts.created += written.created;
        counts.updated += written.updated;
        counts.unchanged += written.matched - written.created - written.updated;
      }
      return counts;
    });
  } catch (error) {
    if (error === gone) return undefined;
    throw error;
  }
}

/** Keeps the sweep away, and notices when the rows have gone. */
async function holdImport(trx: Trx, { id }: StagedImport): Promise<void> {
  const held = await trx
    .updateTable('imports')
    .set({ touched_at: sql`now()` })
    .where('id', '=', id)
    .returning('id')
    .executeTakeFirst();
  if (!held) throw importLost();
}

export function importLost(): DomainError {
  return new DomainError(
    'unavailable',
    'The import was interrupted. Nothing was written. Try again.',
  );
}

async function hasMembers(trx: Trx, clientId: number, listId: number): Promise<boolean> {
  const { rows } = await sql`
    select from list_members where client_id = ${clientId} and list_id = ${listId} limit 1
  `.execute(trx);
  return rows.length > 0;
}

/** As removeSuperseded of upsert-members.ts; the consent that moves is kept beside the row. */
async function removeSuperseded(
  trx: Trx,
  staged: StagedImport,
  listId: number,
  range: Range,
): Promise<void> {
  const { id, clientId } = staged;
  await sql`
    with held as materialized (
      select r.line, m.row, m.consent
      from ${rowsOf(staged, range)}
      ${joinContact(clientId)}
      cross join lateral (
        select ctid as row, source_object_key, consent from list_members
        where client_id = ${clientId} and contact_id = c.id and list_id = ${listId} and removed_at is null
        limit 1
      ) m
      where m.source_object_key <> r.source_object_key
    ),
    removed as (
      update list_members set removed_at = clock_timestamp(), updated_at = now()
      where ctid = any (array(select row from held))
    )
    update import_rows r set carried_consent = held.consent
    from held where r.import_id = ${id} and r.line = held.line
  `.execute(trx);
}
