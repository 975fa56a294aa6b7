// A chunk's tallies: they change in the statement that settles the messages they count.
import { sql, type RawBuilder } from 'kysely';
import type { ChunkRef } from '../queue.ts';

const SKIP_REASONS = [
  'hard_bounce',
  'complaint',
  'suppressed',
  'unsubscribed',
  'consent_pending',
  'cancelled',
  'expired',
] as const;

/**
 * Adds what `settled` (a CTE with state and reason) has settled to the chunk's tallies; `more` are
 * further columns to set, of the chunk `k`. Other states count nothing.
 */
export function tally(
  chunk: ChunkRef,
  settled: RawBuilder<unknown>,
  more: RawBuilder<unknown>[] = [],
): RawBuilder<unknown> {
  const skips = SKIP_REASONS.map((reason) => ({
    column: `skipped_${reason}`,
    counted: sql`state = 'skipped' and reason = ${sql.lit(reason)}`,
  }));
  const states = ['failed', 'unknown'].map((state) => ({
    column: state,
    counted: sql`state = ${sql.lit(state)}`,
  }));
  const tallies = [...skips, ...states];
  const counts = tallies.map(
    ({ column, counted }) => sql`count(*) filter (where ${counted}) as ${sql.ref(column)}`,
  );
  const sums = tallies.map(
    ({ column }) => sql`${sql.ref(column)} = k.${sql.ref(column)} + t.${sql.ref(column)}`,
  );
  return sql`
    update send_chunks k set ${sql.join([...sums, ...more])}
    from (select ${sql.join(counts)}, count(*) as settled from ${settled}
      where state in ('skipped', 'failed', 'unknown')) t
    where k.client_id = ${chunk.client_id} and k.send_id = ${chunk.send_id} and k.chunk_no = ${chunk.chunk_no}
      ${more.length > 0 ? sql`` : sql`and t.settled > 0`}`;
}
