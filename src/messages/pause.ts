// Holding all delivery, for every worker on every machine: a database restored from a backup must not
// mail again what was sent since. Everything is accepted and prepared meanwhile; no mail leaves.
import { sql, type RawBuilder } from 'kysely';
import type { Database } from '../database/connect.ts';

export interface Pause {
  paused_at: Date;
  reason: string | null;
}

/** Repeatable: the first one's time and reason stay. */
export async function pauseDelivery(db: Database, reason: string | null): Promise<Pause> {
  await db
    .insertInto('delivery_pause')
    .values({ reason })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  return (await findPause(db))!;
}

/** @returns the pause that ended; undefined where there was none */
export async function resumeDelivery(db: Database): Promise<Pause | undefined> {
  return db.deleteFrom('delivery_pause').returning(['paused_at', 'reason']).executeTakeFirst();
}

export function findPause(db: Database): Promise<Pause | undefined> {
  return db.selectFrom('delivery_pause').select(['paused_at', 'reason']).executeTakeFirst();
}

/** Part of every claim. */
export const notPaused: RawBuilder<boolean> = sql`not exists (select from delivery_pause)`;
