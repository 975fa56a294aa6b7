// Files of members as bodies: reading one as a stream that has to keep coming, and sending one as it is
// asked for. What is wrong with a body before its first row is found here.
import type { Context } from 'hono';
import { DomainError, invalid } from '../errors.ts';
import type { ImportFormat } from '../recipients/import-rows.ts';
import { MIB } from './request.ts';

const MOST_BYTES = 1024 * MIB;
/** A place among the imports is others', too. */
const SILENCE_MS = 30_000;
const LEAST_BYTES_PER_SECOND = 1024;
/** How much of a refused body is read and dropped, so that its client gets to reading the answer. */
const DROPPED_BYTES = 64 * MIB;
const DROPPED_MS = 5_000;

const FORMATS: Record<string, ImportFormat> = {
  'text/csv': 'csv',
  'application/x-ndjson': 'ndjson',
};

/** @throws unsupported_media_type */
export function importFormat(c: Context): ImportFormat {
  const [type, ...parameters] = (c.req.header('content-type') ?? '').split(';');
  const format = FORMATS[type!.trim().toLowerCase()];
  const charset = /^ *charset="?([^"]*)"?$/iu;
  const other = parameters.find((one) => charset.test(one) && !/utf-?8/iu.test(one));
  if (!Object.hasOwn(FORMATS, type!.trim().toLowerCase()) || !format || other !== undefined) {
    throw new DomainError(
      'unsupported_media_type',
      'The body must be CSV (content-type text/csv) or NDJSON (application/x-ndjson), in UTF-8.',
    );
  }
  if ((c.req.header('content-encoding') ?? 'identity').toLowerCase() !== 'identity') {
    throw new DomainError(
      'unsupported_media_type',
      'The body must be sent as it is, without Content-Encoding.',
    );
  }
  return format;
}

/**
 * Runs `use` with the body's chunks. Where it fails, some of the rest is read, so that the client sees why.
 * @throws payload_too_large; validation_failed for a body that ends early or comes too slowly
 */
export async function withBody<Result>(
  c: Context,
  use: (chunks: AsyncIterable<Uint8Array>) => Promise<Result>,
): Promise<Result> {
  if (Number(c.req.header('content-length') ?? 0) > MOST_BYTES) throw tooLarge();
  const reader = (c.req.raw.body ?? ReadableStream.from<Uint8Array>([])).getReader();
  try {
    return await use(chunksOf(reader));
  } catch (error) {
    await dropRest(reader);
    throw error;
  }
}

type Reader = ReadableStreamDefaultReader<Uint8Array>;

async function* chunksOf(reader: Reader): AsyncGenerator<Uint8Array> {
  let waited = 0;
  let bytes = 0;
  for (;;) {
    const asked = Date.now();
    const { done, value } = await within(SILENCE_MS, reader.read());
    if (done) return;
    bytes += value.length;
    // Our own work between two reads is not the client's slowness.
    waited += Date.now() - asked;
    if (waited > SILENCE_MS && bytes < (waited / 1000) * LEAST_BYTES_PER_SECOND) throw tooSlow();
    if (bytes > MOST_BYTES) throw tooLarge();
    yield value;
  }
}

async function within<Value>(ms: number, reading: Promise<Value>): Promise<Value> {
  const silence = Promise.withResolvers<never>();
  const timer = setTimeout(() => silence.reject(tooSlow()), ms);
  try {
    return await Promise.race([reading, silence.promise]);
  } catch (error) {
    if (error instanceof DomainError) throw error;
    throw invalid([{ path: '', message: 'the body ended early' }], 'The body ended early.');
  } finally {
    clearTimeout(timer);
  }
}

async function dropRest(reader: Reader): Promise<void> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), DROPPED_MS);
  for (let dropped = 0; dropped < DROPPED_BYTES;) {
    // A client that has left fails the read: nothing more comes.
    const next = await Promise.race([reader.read().catch(() => undefined), late.promise]);
    if (!next || next.done) break;
    dropped += next.value.length;
  }
  clearTimeout(timer);
}

function tooLarge(): DomainError {
  return new DomainError(
    'payload_too_large',
    `The body must be at most ${MOST_BYTES / MIB} MiB for this request; split the file.`,
  );
}

function tooSlow(): DomainError {
  return invalid(
    [{ path: '', message: 'the body came too slowly' }],
    `The body came too slowly: at least ${LEAST_BYTES_PER_SECOND} bytes a second are expected, and no ` +
      `pause of more than ${SILENCE_MS / 1000} seconds.`,
  );
}

/** A download of CSV, made block by block as the client takes it. One that fails is cut off. */
export function csvResponse(c: Context, name: string, blocks: AsyncGenerator<string>): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await blocks.next();
        if (done) controller.close();
        else controller.enqueue(encoder.encode(value));
      },
      cancel: async () => void (await blocks.return(undefined)),
    },
    { highWaterMark: 1 },
  );
  return c.body(body, 200, {
    'content-type': 'text/csv; charset=utf-8',
    'content-disposition': `attachment; filename="${name}"`,
  });
}
