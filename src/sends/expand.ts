// Task expand_send: cuts the snapshot into chunks and wakes their preparation. Moves a send from
// queued to sending; an empty one is completed at once. One that was cancelled or has expired before is
// cut too, as its counts are those of its chunks. Running it again finds nothing to do.
import { sql } from 'kysely';
import type { Trx } from '../database/connect.ts';
import type { SendState } from '../database/schema.ts';
import { enqueueChunks, enqueueFetches, type SendRef } from '../queue.ts';
import { closingOf } from './closing.ts';

/** Members of a chunk: large enough that a job costs under 1 µs a mail, small enough to be done soon. */
export const CHUNK_SIZE = 500;

/** A chunk consists of whole calls of the callback. */
function chunkSizeFor(callbackChunkSize: number | null): number {
  if (callbackChunkSize === null) return CHUNK_SIZE;
  return Math.max(1, Math.floor(CHUNK_SIZE / callbackChunkSize)) * callbackChunkSize;
}

export async function expandSend(trx: Trx, { client_id, send_id }: SendRef): Promise<void> {
  const send = await trx
    .selectFrom('sends as s')
    .select(['s.state', 's.intended', 's.callback_chunk_size', closingOf('s').as('closing')])
    .where('s.client_id', '=', client_id)
    .where('s.id', '=', send_id)
    .where('s.open_chunks', 'is', null)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!send || !(send.state === 'queued' || send.closing)) return;
  const size = chunkSizeFor(send.callback_chunk_size);
  const chunks = Math.ceil(send.intended / size);
  await sql`
    insert into send_chunks (client_id, send_id, chunk_no, first_position, last_position, next_attempt_at)
    select ${client_id}, ${send_id}, n, (n - 1) * ${size}::integer + 1,
      least(n * ${size}::integer, ${send.intended}::integer),
      case when ${send.callback_chunk_size}::integer is not null then now() end
    from generate_series(1, ${chunks}::integer) n
  `.execute(trx);
  await trx
    .updateTable('sends')
    .set({
      open_chunks: chunks,
      state: stateAfterCut(send.state, chunks),
      ...(chunks === 0 && { completed_at: sql`now()` }),
    })
    .where('client_id', '=', client_id)
    .where('id', '=', send_id)
    .execute();
  if (send.callback_chunk_size !== null && !send.closing) return enqueueFetches(trx, client_id);
  await enqueueChunks(
    trx,
    'prepare_chunk',
    sql`select client_id, send_id, chunk_no from send_chunks
        where client_id = ${client_id} and send_id = ${send_id}`,
  );
}

function stateAfterCut(state: SendState, chunks: number): SendState {
  if (state === 'cancelled') return state;
  return chunks === 0 ? 'completed' : 'sending';
}
