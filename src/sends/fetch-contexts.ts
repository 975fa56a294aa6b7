// Task fetch_contexts: asks the client for personal contexts, chunk by chunk, call by call, and makes the
// messages of what it got. A chunk is leased while its contexts are fetched, which also bounds the calls to
// one client over all workers. No transaction is open during a call; what a call gave is stored once, with
// its messages, in one transaction. A call that failed for now is tried again later; one that failed for
// good fails the members it was for, and nobody else.
import { sql } from 'kysely';
import type { Database, Trx } from '../database/connect.ts';
import { postSigned } from '../callback/post.ts';
import { untilAnswered } from '../messages/batch-writer.ts';
import { fenceOf, waitForClaims } from '../messages/claim.ts';
import type { Delivery } from '../messages/delivery.ts';
import { nextDelay } from '../messages/retry.ts';
import { enqueueChunks, MOST_FETCHES, type ChunkRef, type FetchRef } from '../queue.ts';
import type { Template } from '../templates/registry.ts';
import { readAnswer, type Fetched } from './callback-answer.ts';
import { closingOf } from './closing.ts';
import { askedOf, readPage, storePage, type Page } from './context-pages.ts';

/** Failed calls in a row after which a job ends: the next one is made when a chunk is due again. */
const MOST_FAILURES = 3;
/** After a failure of our own: nobody is called again and again for it. */
const AFTER_ERROR_SECONDS = 5;
/** How long a chunk waits for a worker that has its template's version. */
const TEMPLATE_WAIT_SECONDS = 60;

/** A chunk whose contexts this worker fetches, and what of its send it needs. */
export interface FetchedChunk extends ChunkRef {
  first_position: number;
  last_position: number;
  fetched_to: number | null;
  fetch_attempts: number;
  failing_seconds: number;
  send_key: string;
  list_id: number;
  list_key: string;
  requires_consent: boolean;
  template_key: string;
  template_version: string;
  callback_url: string;
  callback_chunk_size: number;
  callback_secret: string;
}

export async function fetchContexts(delivery: Delivery, { client_id }: FetchRef): Promise<void> {
  const { db, log, worker, stopping } = delivery;
  for (let failures = 0; failures < MOST_FAILURES && !stopping.aborted;) {
    const chunk = await leaseToFetch(db, worker, client_id);
    if (!chunk) return;
    try {
      failures = (await fetchChunk(delivery, chunk)) ? 0 : failures + 1;
    } catch (error) {
      // The chunk must not stay with us: nobody else could fetch it.
      await untilAnswered(
        () =>
          db.transaction().execute(async (trx) => {
            await waitForClaims(trx, worker);
            await giveBack(trx, worker, chunk, AFTER_ERROR_SECONDS);
          }),
        (message) =>
          log.error({ error: message, send_id: chunk.send_id }, 'chunk not handed back yet'),
      );
      throw error;
    }
  }
}

/** The client's next chunk whose contexts are missing; undefined where none is due. */
function leaseToFetch(
  db: Database,
  worker: number,
  clientId: number,
): Promise<FetchedChunk | undefined> {
  return db.transaction().execute(async (trx) => {
    // One after the other, so that they see each other's leases.
    await sql`select from clients where id = ${clientId} for no key update`.execute(trx);
    const { rows } = await sql<FetchedChunk>`
      with fence as materialized (${fenceOf(worker)}),
      next as (
        select k.client_id, k.send_id, k.chunk_no
        from send_chunks k join sends s on s.client_id = k.client_id and s.id = k.send_id
        where k.client_id = ${clientId} and k.prepared_at is null and k.completed_at is null
          and k.leased_by is null and (k.next_attempt_at is null or k.next_attempt_at <= now())
          and s.state = 'sending' and s.callback_url is not null
          and (s.expires_at is null or s.expires_at > now())
          and exists (select from fence)
          and (select count(*) from send_chunks busy
               where busy.client_id = ${clientId} and busy.prepared_at is null
                 and busy.leased_by is not null) < ${MOST_FETCHES}
        order by k.chunk_no, k.send_id
        limit 1
        for no key update of k skip locked
      )
      update send_chunks k set leased_by = ${worker}, next_attempt_at = null
      from next, sends s, clients c
      where (k.client_id, k.send_id, k.chunk_no) = (next.client_id, next.send_id, next.chunk_no)
        and s.client_id = k.client_id and s.id = k.send_id and c.id = k.client_id
      returning k.client_id, k.send_id, k.chunk_no, k.first_position, k.last_position, k.fetched_to,
        k.fetch_attempts, extract(epoch from now() - coalesce(k.fetch_failing_since, now()))::float8 as failing_seconds,
        s.send_key, s.list_id, s.list_key, s.requires_consent, s.template_key, s.template_version,
        s.callback_url, s.callback_chunk_size, c.callback_secret
    `.execute(trx);
    return rows[0];
  });
}

/** @returns false where the chunk has to wait, as its call failed */
async function fetchChunk(delivery: Delivery, chunk: FetchedChunk): Promise<boolean> {
  const { db, log, worker, templates, stopping } = delivery;
  const template = templates.get(chunk.template_key);
  if (template?.version !== chunk.template_version) {
    const { send_id, template_key, template_version } = chunk;
    log.warn(
      { send_id, template_key, template_version },
      'this worker does not have the template version of the send',
    );
    await db.transaction().execute((trx) => giveBack(trx, worker, chunk, TEMPLATE_WAIT_SECONDS));
    return false;
  }
  let from = Math.max(chunk.first_position, (chunk.fetched_to ?? 0) + 1);
  while (from <= chunk.last_position) {
    if (stopping.aborted || !(await isWanted(db, worker, chunk))) {
      await db.transaction().execute((trx) => giveBack(trx, worker, chunk, 0));
      return true;
    }
    const to = Math.min(from + chunk.callback_chunk_size - 1, chunk.last_position);
    const page = await readPage(db, chunk, from, to);
    const fetched = await callFor(delivery, chunk, template, page);
    if (fetched.kind === 'later') {
      // A call that was cut by our own end is made again at once, by others.
      if (stopping.aborted)
        await db.transaction().execute((trx) => giveBack(trx, worker, chunk, 0));
      else await putOff(delivery, chunk, fetched);
      return false;
    }
    const stored = await db
      .transaction()
      .execute((trx) => storePage(trx, worker, chunk, page, fetched));
    if (!stored) {
      // Declared dead, or its missing contexts are wanted again since: from the beginning then.
      await db.transaction().execute((trx) => giveBack(trx, worker, chunk, 0));
      return true;
    }
    chunk.fetch_attempts = 0;
    chunk.failing_seconds = 0;
    from = to + 1;
  }
  await db.transaction().execute((trx) => finish(trx, worker, chunk));
  return true;
}

/** The send goes on; else nobody is called for it any more. */
async function isWanted(db: Database, worker: number, chunk: ChunkRef): Promise<boolean> {
  const { rows } = await sql`
    with fence as (${fenceOf(worker)})
    select from sends s, fence
    where s.client_id = ${chunk.client_id} and s.id = ${chunk.send_id} and s.state = 'sending'
      and (s.expires_at is null or s.expires_at > now())
  `.execute(db);
  return rows.length > 0;
}

/** One call; none where nobody is to be asked for. */
async function callFor(
  { log, callback, retry, stopping }: Delivery,
  chunk: FetchedChunk,
  template: Template,
  page: Page,
): Promise<Fetched> {
  const asked = askedOf(page);
  if (asked.length === 0) return { kind: 'contexts', contexts: new Map() };
  const { send_id, send_key, list_key, template_key } = chunk;
  const number = Math.floor((page.from - 1) / chunk.callback_chunk_size) + 1;
  const answer = await postSigned({
    url: chunk.callback_url,
    id: `${send_id}_${number}`,
    secret: chunk.callback_secret,
    policy: callback,
    signal: stopping,
    body: JSON.stringify({
      send_id,
      send_key,
      list_key,
      template_key,
      chunk: number,
      recipients: asked.map(({ source_object_key, email_given }) => ({
        source_object_key,
        email: email_given,
      })),
    }),
  });
  const fetched = readAnswer(answer, asked, template);
  if (fetched.kind === 'contexts') return fetched;
  log.warn({ send_id, chunk: number, why: fetched.detail }, 'contexts not fetched');
  // What has failed for hours has failed.
  return fetched.kind === 'later' && chunk.failing_seconds > retry.window
    ? { kind: 'failed', reason: 'context_missing', detail: fetched.detail }
    : fetched;
}

/** Gives the chunk back until its next try; all others of the send, too, where the client says so. */
async function putOff(
  { db, worker, retry }: Delivery,
  chunk: FetchedChunk,
  { detail, retryAfterSeconds }: { detail: string; retryAfterSeconds: number | undefined },
): Promise<void> {
  const seconds =
    nextDelay(
      { ...retry, window: Infinity },
      {
        attempts: chunk.fetch_attempts + 1,
        ageSeconds: 0,
        urgent: true,
        atLeast: retryAfterSeconds ?? 0,
        seed: chunk.chunk_no,
      },
    ) ?? 0;
  await db.transaction().execute(async (trx) => {
    await sql`
      update send_chunks set fetch_attempts = least(fetch_attempts + 1, 10000),
        fetch_failing_since = coalesce(fetch_failing_since, now()), last_fetch_error = ${detail}
      where client_id = ${chunk.client_id} and send_id = ${chunk.send_id}
        and chunk_no = ${chunk.chunk_no} and leased_by = ${worker}
    `.execute(trx);
    await giveBack(trx, worker, chunk, seconds);
    if (retryAfterSeconds === undefined) return;
    await sql`
      update send_chunks set next_attempt_at =
        greatest(next_attempt_at, now() + make_interval(secs => ${retryAfterSeconds}::float8))
      where client_id = ${chunk.client_id} and send_id = ${chunk.send_id}
        and prepared_at is null and completed_at is null and leased_by is null
    `.execute(trx);
  });
}

async function giveBack(trx: Trx, worker: number, chunk: ChunkRef, seconds: number): Promise<void> {
  await sql`
    update send_chunks k set leased_by = null,
      next_attempt_at = case when ${closingOf('s')} is null
        then least(now() + make_interval(secs => ${seconds}::float8), s.expires_at)
        else now() end
    from sends s
    where k.client_id = ${chunk.client_id} and k.send_id = ${chunk.send_id}
      and k.chunk_no = ${chunk.chunk_no} and k.leased_by = ${worker}
      and s.client_id = k.client_id and s.id = k.send_id
  `.execute(trx);
}

/** All contexts of the chunk are there: it can be delivered. Unless missing ones are wanted again since. */
async function finish(trx: Trx, worker: number, chunk: ChunkRef): Promise<void> {
  const { client_id, send_id, chunk_no } = chunk;
  const { rows } = await sql`
    update send_chunks set prepared_at = now(), leased_by = null, next_attempt_at = null,
      last_fetch_error = null
    where client_id = ${client_id} and send_id = ${send_id} and chunk_no = ${chunk_no}
      and leased_by = ${worker} and prepared_at is null and fetched_to = last_position
    returning chunk_no
  `.execute(trx);
  if (rows.length === 0) return giveBack(trx, worker, chunk, 0);
  await enqueueChunks(
    trx,
    'deliver_chunk',
    sql`
    select ${client_id}::integer as client_id, ${send_id}::uuid as send_id, ${chunk_no}::integer as chunk_no`,
  );
}
