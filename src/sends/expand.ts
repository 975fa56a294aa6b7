// Task expand_send: cuts the snapshot into chunks and wakes their preparation. Moves a send from
// queued to sending; an empty one is completed at once. Running it again finds nothing to do.
import { sql } from 'kysely';
import type { Trx } from '../database/connect.ts';
import { enqueueChunks, type SendRef } from '../queue.ts';

/** Members of a chunk: large enough that a job costs under 1 µs a mail, small enough to be done soon. */
export const CHUNK_SIZE = 500;

export async function expandSend(trx: Trx, { client_id, send_id }: SendRef): Promise<void> {
  const send = await trx
    .selectFrom('sends')
    .select('intended')
    .where('client_id', '=', client_id)
    .where('id', '=', send_id)
    .where('state', '=', 'queued')
    .where('open_chunks', 'is', null)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!send) return;
  const chunks = Math.ceil(send.intended / CHUNK_SIZE);
  await sql`
    insert into send_chunks (client_id, send_id, chunk_no, first_position, last_position)
    select ${client_id}, ${send_id}, n, (n - 1) * ${CHUNK_SIZE}::integer + 1,
      least(n * ${CHUNK_SIZE}::integer, ${send.intended}::integer)
    from generate_series(1, ${chunks}::integer) n
  `.execute(trx);
  await trx
    .updateTable('sends')
    .set(
      chunks === 0
        ? { open_chunks: 0, state: 'completed', completed_at: sql`now()` }
        : { open_chunks: chunks, state: 'sending' },
    )
    .where('client_id', '=', client_id)
    .where('id', '=', send_id)
    .execute();
  await enqueueChunks(
    trx,
    'prepare_chunk',
    sql`select client_id, send_id, chunk_no from send_chunks
        where client_id = ${client_id} and send_id = ${send_id}`,
  );
}
