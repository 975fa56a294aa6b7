// A send that was cancelled or has expired is closing: what is queued becomes skipped, chunk by chunk, in
// the same tallies as everything else. Nothing is guessed: a message that may have been delivered is
// unknown, and one that was tried before the send expired has failed.
import { sql, type RawBuilder } from 'kysely';
import type { Trx } from '../database/connect.ts';
import { DomainError } from '../errors.ts';
import { tally } from '../messages/tally.ts';
import type { ChunkRef } from '../queue.ts';

export type Closing = 'cancelled' | 'expired';

/** Why the send of that alias gives up what is queued; null while it does not. */
export function closingOf(send: string): RawBuilder<Closing | null> {
  return sql<Closing | null>`case
    when ${sql.ref(`${send}.state`)} = 'cancelled' then 'cancelled'
    when ${sql.ref(`${send}.expires_at`)} <= now() then 'expired'
  end`;
}

/** What is queued in a chunk that nobody else has in hand. */
export async function closeQueued(trx: Trx, ref: ChunkRef, closing: Closing): Promise<void> {
  const chunk = (column: string) => sql`(
    select ${sql.ref(column)} from send_chunks
    where client_id = ${ref.client_id} and send_id = ${ref.send_id} and chunk_no = ${ref.chunk_no})`;
  await sql`
    with closed as (
      update messages m set
        state = case
          when m.was_unknown then 'unknown'
          when ${closing} = 'expired' and m.attempts > 0 then 'failed'
          else 'skipped' end,
        reason = ${closing}, settled_at = now()
      where m.client_id = ${ref.client_id} and m.send_id = ${ref.send_id}
        and m.position between ${chunk('first_position')} and ${chunk('last_position')}
        and m.state = 'queued'
      returning m.state, m.reason
    )
    ${tally(ref, sql`closed`)}
  `.execute(trx);
}

const OVER = {
  completed: 'The send is completed.',
  cancelled: 'The send is cancelled.',
  expired: 'The send has expired.',
  purged: 'The send is so old that its messages have been deleted.',
};

/** Why nothing of a send can be sent any more. */
export function sendIsOver(how: Closing | 'completed' | 'purged'): DomainError {
  return new DomainError('send_is_over', OVER[how]);
}
