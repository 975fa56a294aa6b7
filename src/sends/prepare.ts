// Task prepare_chunk: one message per snapshot row of the chunk, queued or skipped with its reason,
// the chunk's tally and the wake-up of its delivery, all in one transaction. The messages' unique
// keys make a second run add nothing.
import { sql } from 'kysely';
import type { Trx } from '../database/connect.ts';
import { tallySkips } from '../messages/claim.ts';
import { enqueueChunks, type ChunkRef } from '../queue.ts';
import { eligibility, type SendRules } from '../recipients/eligibility.ts';

export async function prepareChunk(trx: Trx, ref: ChunkRef): Promise<void> {
  const { client_id, send_id, chunk_no } = ref;
  const chunk = await trx
    .selectFrom('send_chunks as k')
    .innerJoin('sends as s', (join) =>
      join.onRef('s.client_id', '=', 'k.client_id').onRef('s.id', '=', 'k.send_id'),
    )
    .select(['k.first_position', 'k.last_position', 's.list_id', 's.requires_consent'])
    .where('k.client_id', '=', client_id)
    .where('k.send_id', '=', send_id)
    .where('k.chunk_no', '=', chunk_no)
    .where('k.prepared_at', 'is', null)
    .where('s.state', '=', 'sending')
    .forNoKeyUpdate('k')
    .executeTakeFirst();
  if (!chunk) return;
  await insertMessages(trx, ref, chunk);
  await trx
    .updateTable('send_chunks')
    .set({ prepared_at: sql`now()` })
    .where('client_id', '=', client_id)
    .where('send_id', '=', send_id)
    .where('chunk_no', '=', chunk_no)
    .execute();
  await enqueueChunks(
    trx,
    'deliver_chunk',
    sql`
    select ${client_id}::integer as client_id, ${send_id}::uuid as send_id, ${chunk_no}::integer as chunk_no`,
  );
}

async function insertMessages(
  trx: Trx,
  ref: ChunkRef,
  chunk: SendRules & { first_position: number; last_position: number },
): Promise<void> {
  const { joins, reason } = eligibility(
    ref.client_id,
    chunk,
    sql`r.contact_id`,
    sql`r.source_object_key`,
  );
  await sql`
    with made as (
      insert into messages
        (client_id, send_id, position, contact_id, source_object_key, state, reason, settled_at)
      select r.client_id, r.send_id, r.position, r.contact_id, r.source_object_key,
        case when ${reason} is null then 'queued' else 'skipped' end,
        ${reason},
        case when ${reason} is not null then now() end
      from send_recipients r
      ${joins}
      where r.client_id = ${ref.client_id} and r.send_id = ${ref.send_id}
        and r.position between ${chunk.first_position} and ${chunk.last_position}
      order by r.position
      on conflict do nothing
      returning state, reason
    )
    ${tallySkips(ref, sql`made`)}
  `.execute(trx);
}
