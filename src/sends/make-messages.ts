// One message per snapshot row of a chunk, queued or skipped with its reason, and the chunk's tally, in
// one statement. A second run adds nothing; the caller has locked the chunk, so no two run at once.
import { sql } from 'kysely';
import type { Trx } from '../database/connect.ts';
import { tally } from '../messages/tally.ts';
import type { ChunkRef } from '../queue.ts';
import { eligibility, type SendRules } from '../recipients/eligibility.ts';
import type { Closing } from './closing.ts';

/** Those of a send that is closing are skipped for that, where there is no better reason. */
export async function makeMessages(
  trx: Trx,
  ref: ChunkRef,
  rules: SendRules,
  closing: Closing | null = null,
): Promise<void> {
  const { client_id, send_id, chunk_no } = ref;
  const { joins, reason } = eligibility(
    client_id,
    rules,
    sql`r.contact_id`,
    sql`r.source_object_key`,
  );
  await sql`
    with judged as (
      select r.client_id, r.send_id, r.position, r.contact_id, r.source_object_key,
        coalesce(${reason}, ${closing}::text) as reason
      from (
        select first_position, last_position from send_chunks
        where client_id = ${client_id} and send_id = ${send_id} and chunk_no = ${chunk_no} limit 1
      ) k
      cross join lateral (
        select * from send_recipients
        where client_id = ${client_id} and send_id = ${send_id}
          and position between k.first_position and k.last_position
        order by position offset 0
      ) r
      ${joins}
      where (
        select true from messages
        where client_id = ${client_id} and send_id = ${send_id} and position = r.position limit 1) is null
    ),
    made as (
      insert into messages
        (client_id, send_id, position, contact_id, source_object_key, state, reason, settled_at)
      select client_id, send_id, position, contact_id, source_object_key,
        case when reason is null then 'queued' else 'skipped' end,
        reason,
        case when reason is not null then now() end
      from judged
      returning state, reason
    )
    ${tally(ref, sql`made`, [sql`prepared_at = now()`])}
  `.execute(trx);
}
