// Reads a multipart/form-data request as a stream (RFC 7578): text into memory, files to disk with
// their SHA-256, every dimension bounded and no file ever whole in memory. What the client did wrong
// is a DomainError, thrown when the rest of the body was read and dropped as far as is reasonable, so
// that the client sees the answer. The connection of a client that goes on sending is closed by the
// server after the answer. Who may read at the same time is up to UploadGate.
import { isUtf8 } from 'node:buffer';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { MIMEType } from 'node:util';
import { DomainError, invalid } from '../errors.ts';
import { malformed, tooLarge } from './multipart-header.ts';
import { MultipartParser } from './multipart-parser.ts';
import { spoolFile, withSpoolFolder } from './upload-gate.ts';

export interface MultipartLimits {
  /** Of one text value. */
  fieldBytes: number;
  fields: number;
  /** Of all names and text values; without it, twice that of one value. */
  textBytes?: number;
  files: number;
  fileBytes: number;
  totalFileBytes: number;
  /** For the body to arrive, from the moment it is read. */
  timeoutMs: number;
  /** The longest pause in which no byte comes. */
  silenceMs: number;
  /** On average, once that much time has passed. */
  leastBytesPerSecond: number;
}

export interface SpooledFile {
  field: string;
  /** As sent, path parts included; undefined where the part has none, or an empty one. */
  name: string | undefined;
  /** Lower case, without parameters; empty where the part says nothing. */
  declaredType: string;
  path: string;
  size: number;
  sha256: Buffer;
}

export interface MultipartForm {
  /** In the order sent; a repeated name is repeated. Valid UTF-8 without NUL. */
  fields: { name: string; value: string }[];
  files: SpooledFile[];
}

type Body = ReadableStreamDefaultReader<Uint8Array>;

const KIB = 1024;
/** Header, boundary and line ends of a part, on average, and something for before and after. */
const PART_OVERHEAD = 4 * KIB;
const BODY_OVERHEAD = 128 * KIB;
/** Chunks below this size are put together. */
const GATHERED = 16 * KIB;
/** How much of a refused body is read and dropped, so that its client gets to reading the answer. */
const LINGER_MS = 5_000;
const LINGER_SILENCE_MS = 1_000;
const LINGER_BYTES = 64 * KIB * KIB;

/**
 * Runs `use` with the form and removes the spooled files afterwards, whatever happens. `admit` says
 * when the form is read; what is refused before and after takes nobody's turn.
 * @throws unsupported_media_type, payload_too_large, validation_failed, unavailable (the disk is full)
 */
export async function withMultipart<Result>(
  request: Request,
  limits: MultipartLimits,
  use: (form: MultipartForm) => Promise<Result>,
  admit: (read: () => Promise<MultipartForm>) => Promise<MultipartForm> = (read) => read(),
): Promise<Result> {
  const body: Body = (request.body ?? ReadableStream.from<Uint8Array>([])).getReader();
  const deadline = Date.now() + limits.timeoutMs;
  try {
    requireNoEncoding(request.headers.get('content-encoding'));
    const boundary = readBoundary(request.headers.get('content-type'));
    boundLength(request.headers.get('content-length'), limits);
    return await withSpoolFolder(async (folder) =>
      use(await admit(() => readForm(body, boundary, limits, folder))),
    );
  } catch (error) {
    await dropRest(body, deadline);
    throw error;
  }
}

/** bchars of RFC 2046, section 5.1.1; a blank may not be the last. */
const BOUNDARY = /^[\w'()+,\-./:=? ]{0,69}[\w'()+,\-./:=?]$/u;

function requireNoEncoding(encoding: string | null): void {
  if (encoding === null || encoding.toLowerCase() === 'identity') return;
  throw new DomainError(
    'unsupported_media_type',
    'The body must be sent as it is, without Content-Encoding.',
  );
}

function readBoundary(contentType: string | null): string {
  let type: MIMEType | undefined;
  try {
    type = new MIMEType(contentType ?? '');
  } catch {
    // Refused below, like any other type.
  }
  if (type?.essence !== 'multipart/form-data') {
    throw new DomainError(
      'unsupported_media_type',
      'The body must be a form: content-type multipart/form-data.',
    );
  }
  const charset = type.params.get('charset') ?? 'utf-8';
  if (!/^utf-?8$/iu.test(charset)) {
    throw new DomainError('unsupported_media_type', 'The form must be UTF-8.');
  }
  const boundary = type.params.get('boundary');
  if (boundary === null) throw malformed('The content-type has no boundary.');
  if (BOUNDARY.test(boundary)) return boundary;
  throw malformed(
    "The boundary must be 1 to 70 letters, digits and characters of '()+_,-./:=? (RFC 2046).",
  );
}

/** What cannot fit is not even begun. */
function boundLength(contentLength: string | null, limits: MultipartLimits): void {
  const most =
    limits.totalFileBytes +
    textBytes(limits) +
    (limits.fields + limits.files) * PART_OVERHEAD +
    BODY_OVERHEAD;
  if (Number(contentLength ?? 0) > most) {
    throw tooLarge(`The body must be at most ${most} bytes.`);
  }
}

function textBytes(limits: MultipartLimits): number {
  return limits.textBytes ?? 2 * limits.fieldBytes;
}

/** Returns when every file is on disk; where it throws, nothing writes to the folder any more. */
async function readForm(
  body: Body,
  boundary: string,
  limits: MultipartLimits,
  folder: string,
): Promise<MultipartForm> {
  const failed = Promise.withResolvers<never>();
  const fail = failed.reject;
  const fields: MultipartForm['fields'] = [];
  const spooling: Promise<SpooledFile>[] = [];
  const countText = counter(textBytes(limits), 'The text fields together');
  const countFiles = counter(limits.totalFileBytes, 'The files together');

  const spool = async (part: Omit<SpooledFile, 'path' | 'size' | 'sha256'>, stream: Readable) => {
    const path = join(folder, String(spooling.length));
    return { ...part, path, ...(await spoolFile(stream, path, countFiles)) };
  };
  const parser = new MultipartParser(boundary, limits, {
    fail,
    field(name, bytes) {
      try {
        countText(Buffer.byteLength(name) + bytes.length);
        const value = decode(name, bytes);
        if (name !== '_charset_') fields.push({ name, value });
        else if (!/^utf-?8$/iu.test(value)) throw notUtf8(name);
      } catch (error) {
        fail(error);
      }
    },
    file(field, name, declaredType, stream) {
      stream.once('limit', () => fail(fileTooLarge(field, name, limits.fileBytes)));
      const spooled = spool({ field, name, declaredType }, stream);
      spooled.catch((error: unknown) => fail(parser.explain(error)));
      spooling.push(spooled);
    },
  });
  const late = setTimeout(() => fail(tookTooLong(limits.timeoutMs)), limits.timeoutMs);
  try {
    await Promise.race([feed(body, parser, new Pace(limits)), failed.promise]);
    return { fields, files: await Promise.race([Promise.all(spooling), failed.promise]) };
  } finally {
    clearTimeout(late);
    parser.destroy();
    await Promise.allSettled(spooling);
  }
}

async function feed(body: Body, parser: MultipartParser, pace: Pace): Promise<void> {
  for await (const chunk of gather(body, pace)) {
    if (parser.destroyed) return;
    await parser.write(chunk);
  }
  await parser.end();
}

/** A body has to keep coming: whoever trickles it holds a place that others wait for. */
class Pace {
  readonly #limits: MultipartLimits;
  readonly #begun = Date.now();
  #bytes = 0;

  constructor(limits: MultipartLimits) {
    this.#limits = limits;
  }

  /** The next bytes, or what is wrong with their coming. */
  async read(body: Body): Promise<Awaited<ReturnType<Body['read']>>> {
    const { silenceMs, leastBytesPerSecond } = this.#limits;
    const silence = Promise.withResolvers<never>();
    const timer = setTimeout(() => silence.reject(tooSlow(this.#limits)), silenceMs);
    try {
      const next = await Promise.race([body.read(), silence.promise]);
      this.#bytes += next.value?.length ?? 0;
      const elapsed = Date.now() - this.#begun;
      if (elapsed > silenceMs && this.#bytes < (elapsed / 1000) * leastBytesPerSecond) {
        throw tooSlow(this.#limits);
      }
      return next;
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * The body in chunks of a fair size. The parser keeps each chunk of a text value as an object of its
 * own: a value sent byte by byte would cost some hundred times its size.
 */
async function* gather(body: Body, pace: Pace): AsyncGenerator<Uint8Array> {
  const small = Buffer.alloc(GATHERED);
  let filled = 0;
  for (;;) {
    const { done, value } = await pace.read(body).catch((error: unknown) => {
      if (error instanceof DomainError) throw error;
      throw malformed('The connection was closed before the body was complete.');
    });
    if (filled > 0 && (done || filled + value.length > GATHERED)) {
      yield Buffer.from(small.subarray(0, filled));
      filled = 0;
    }
    if (done) return;
    if (value.length > GATHERED) {
      yield value;
      continue;
    }
    small.set(value, filled);
    filled += value.length;
  }
}

function counter(most: number, what: string): (bytes: number) => void {
  let counted = 0;
  return (bytes) => {
    counted += bytes;
    if (counted > most) throw tooLarge(`${what} must be at most ${most} bytes.`);
  };
}

/** A byte order mark stays: the value is what was sent. */
function decode(name: string, bytes: Buffer): string {
  if (!isUtf8(bytes)) throw notUtf8(name);
  if (bytes.includes(0)) {
    throw invalid([{ path: name, message: 'must not contain the character NUL' }]);
  }
  return bytes.toString('utf8');
}

/** Returns at the end of the body, when enough was dropped, or when nothing more seems to come. */
async function dropRest(body: Body, deadline: number): Promise<void> {
  const silence = Promise.withResolvers<undefined>();
  const end = Math.min(deadline, Date.now() + LINGER_MS);
  let left = LINGER_BYTES;
  const timer = setTimeout(() => silence.resolve(undefined), LINGER_SILENCE_MS);
  while (left > 0 && Date.now() < end) {
    // A client that has left fails the read: nothing more comes.
    const next = await Promise.race([body.read().catch(() => undefined), silence.promise]);
    if (!next || next.done) break;
    left -= next.value.length;
    timer.refresh();
  }
  clearTimeout(timer);
}

function fileTooLarge(field: string, name: string | undefined, bytes: number): DomainError {
  const which = name === undefined ? `of ${field}` : name.slice(0, 100).toWellFormed();
  return tooLarge(`The file ${which} must be at most ${bytes} bytes.`);
}

function notUtf8(name: string): DomainError {
  return invalid([{ path: name, message: 'must be valid UTF-8' }]);
}

function tooSlow({ silenceMs, leastBytesPerSecond }: MultipartLimits): DomainError {
  return malformed(
    `The body came too slowly: at least ${leastBytesPerSecond} bytes a second are expected, and no ` +
      `pause of more than ${silenceMs / 1000} seconds.`,
  );
}

function tookTooLong(ms: number): DomainError {
  return malformed(`The body took too long to arrive: more than ${ms / 1000} seconds.`);
}
