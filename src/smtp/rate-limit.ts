// How many messages a mail server may get this second, over all workers on all machines: a token
// bucket in PostgreSQL, filled in database time. It holds what one second brings, so that work which
// wakes once a second can use all of it.
import { sql } from 'kysely';
import type { Database } from '../database/connect.ts';

/** Takes up to `most` tokens in one statement; where there is none, says when the next comes. */
export async function takeTokens(
  db: Database,
  transport: string,
  perSecond: number,
  most: number,
): Promise<{ taken: number; waitSeconds: number }> {
  for (;;) {
    const { rows } = await sql<{ taken: number; wait: number }>`
      with bucket as materialized (
        select clock_timestamp() as at, least(${largest(perSecond)}::float8,
          tokens + ${perSecond}::float8 * greatest(extract(epoch from clock_timestamp() - refilled_at)::float8, 0)) as tokens
        from transport_tokens where transport = ${transport} for update
      ),
      used as (select least(${most}::integer, floor(tokens)::integer) as taken, tokens, at from bucket)
      update transport_tokens b
      set tokens = u.tokens - u.taken, refilled_at = greatest(u.at, b.refilled_at)
      from used u where b.transport = ${transport}
      returning u.taken, (1 - (u.tokens - u.taken)) / ${perSecond}::float8 as wait
    `.execute(db);
    if (rows[0]) return { taken: rows[0].taken, waitSeconds: Math.max(rows[0].wait, 0) };
    await db
      .insertInto('transport_tokens')
      .values({ transport, tokens: largest(perSecond) })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
}

/** Gives back what no message was found for. */
export async function returnTokens(
  db: Database,
  transport: string,
  perSecond: number,
  unused: number,
): Promise<void> {
  await sql`
    update transport_tokens set tokens = least(${largest(perSecond)}::float8, tokens + ${unused}::integer)
    where transport = ${transport}
  `.execute(db);
}

function largest(perSecond: number): number {
  return Math.max(1, perSecond);
}
