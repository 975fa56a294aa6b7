// Task prepare_chunk: the messages of a chunk and the wake-up of their delivery, in one transaction. A
// second run adds nothing. Chunks whose contexts are fetched by callback are prepared in
// fetch-contexts.ts, unless their send is closing.
import { sql } from 'kysely';
import type { Trx } from '../database/connect.ts';
import { enqueueChunks, type ChunkRef } from '../queue.ts';
import { closingOf } from './closing.ts';
import { closeChunk } from './complete.ts';
import { makeMessages } from './make-messages.ts';

export async function prepareChunk(trx: Trx, ref: ChunkRef): Promise<void> {
  const { client_id, send_id, chunk_no } = ref;
  const send = await trx
    .selectFrom('sends as s')
    .select(['s.list_id', 's.requires_consent', 's.state', 's.callback_url'])
    .select(closingOf('s').as('closing'))
    .where('s.client_id', '=', client_id)
    .where('s.id', '=', send_id)
    .executeTakeFirst();
  if (send?.closing) return closeChunk(trx, ref);
  if (send?.state !== 'sending' || send.callback_url !== null) return;
  const chunk = await trx
    .selectFrom('send_chunks')
    .select('chunk_no')
    .where('client_id', '=', client_id)
    .where('send_id', '=', send_id)
    .where('chunk_no', '=', chunk_no)
    .where('prepared_at', 'is', null)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!chunk) return;
  await makeMessages(trx, ref, send);
  await enqueueChunks(
    trx,
    'deliver_chunk',
    sql`
    select ${client_id}::integer as client_id, ${send_id}::uuid as send_id, ${chunk_no}::integer as chunk_no`,
  );
}
