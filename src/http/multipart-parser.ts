// busboy 1.6.0 made strict: each part of a form is told exactly once, with its exact bytes, or the form
// is refused. Left to itself busboy drops parts it does not understand, reads what follows the end of
// the form or not, depending on how the bytes were cut into chunks, replaces bytes that are no UTF-8,
// and has no limit on names, on headers and on what is no part. It emits none of the facts needed, so
// this reads along in two of its inner objects; the version is pinned, and the tests fail without them.
// Rules: RFC 7578 (multipart/form-data), RFC 2046 section 5.1.1 (multipart), RFC 2183 and 5987 (names).
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import busboy, { type Busboy } from 'busboy';
import { invalid } from '../errors.ts';
import {
  endsEarly,
  fieldTooLarge,
  findFlaw,
  malformed,
  nameFlaw,
  notForm,
  readHeader,
  strayBoundary,
  tooLarge,
  type Part,
  type RawHeader,
} from './multipart-header.ts';

const KIB = 1024;
/** Of one part, in bytes; fixed by busboy. */
const MAX_HEADER_BYTES = 16 * KIB;
/** CR LF, "--" and what RFC 2046 allows. */
const MAX_BOUNDARY_BYTES = 4 + 70;
/** Before the first part and after the last: there is nothing to say there. */
const MAX_OUTSIDE_BYTES = 64 * KIB;

export interface PartLimits {
  fields: number;
  fieldBytes: number;
  files: number;
  fileBytes: number;
}

/** Whoever reads the form. After `fail` what else is told means nothing. */
export interface FormListener {
  /** A part without a file name; the bytes are as sent. */
  field(name: string, bytes: Buffer): void;
  /** A part with a file name, be it empty, or of application/octet-stream. The stream must be read. */
  file(name: string, fileName: string | undefined, type: string, stream: Readable): void;
  /** May be called more than once: the first error counts. */
  fail(error: unknown): void;
}

interface Inner {
  /** There while a part's header is read. */
  _hparser: { cb: (header: RawHeader) => void; byteCount: number } | null;
  /** Finds boundaries; replaced once the last was found, and when busboy is destroyed. */
  _bparser: { _cb: (isMatch: boolean, ...found: unknown[]) => void };
  /** The last boundary was found. */
  _complete: boolean;
}

/** The boundary was checked by the caller: it is put between quotation marks. */
export class MultipartParser {
  readonly #busboy: Busboy;
  readonly #listener: FormListener;
  readonly #limits: PartLimits;
  /** Header begun, and not told yet. */
  #part: Part | undefined;
  #parts = 0;
  #told = 0;
  /** Whether the last part is one. */
  #isFile = false;
  #closed = false;
  #headerBytes = 0;
  /** Bytes of whole chunks in which nothing began or ended, outside of files. */
  #quiet = 0;
  /** Found, each with all before it parsed. */
  #boundaries = 0;

  constructor(boundary: string, limits: PartLimits, listener: FormListener) {
    this.#listener = listener;
    this.#limits = limits;
    this.#busboy = busboy({
      headers: { 'content-type': `multipart/form-data; boundary="${boundary}"` },
      preservePath: true,
      defParamCharset: 'utf8',
      // Byte by byte: the reader decodes, and refuses what is no UTF-8.
      defCharset: 'latin1',
      limits: {
        fields: limits.fields,
        files: limits.files,
        parts: limits.fields + limits.files + 1,
        // busboy calls a value or file of exactly its limit truncated.
        fieldSize: limits.fieldBytes + 1,
        fileSize: limits.fileBytes + 1,
        // fieldNameSize and headerPairs have no effect on multipart: see multipart-header.ts.
      },
    });
    this.#readAlong();
    this.#listen();
  }

  get destroyed(): boolean {
    return this.#busboy.destroyed;
  }

  /** Resolves when the bytes are parsed and the readers of files kept up; never after a failure. */
  async write(chunk: Uint8Array): Promise<void> {
    const before = this.#progress();
    await new Promise<void>((resolve) => {
      this.#busboy.write(chunk, () => resolve());
    });
    this.#boundQuiet(before === this.#progress() ? chunk.length : undefined);
  }

  /** Resolves when all was told and the files were read. @throws validation_failed */
  async end(): Promise<void> {
    this.#busboy.end();
    await finished(this.#busboy).catch(() => {});
    if (this.#part) throw notForm(this.#part.number);
    if (!this.#closed) throw endsEarly(this.#parts);
  }

  destroy(): void {
    this.#busboy.destroy();
  }

  /** An error of busboy, or of a file's stream, in words for the client. */
  explain(error: unknown): unknown {
    const message = error instanceof Error ? error.message : '';
    if (message.startsWith('Unexpected end')) return endsEarly(this.#parts);
    if (message !== 'Malformed part header') return error;
    const number = this.#parts + 1;
    if (this.#headerBytes < MAX_HEADER_BYTES) {
      return malformed(`The header of part ${number} is malformed (RFC 7578, section 4.8).`);
    }
    return tooLarge(`The header of part ${number} must be at most ${MAX_HEADER_BYTES} bytes.`);
  }

  #readAlong(): void {
    const inner = this.#busboy as unknown as Inner;
    let search = inner._bparser;
    let header = inner._hparser;
    let watched: ((header: RawHeader) => void) | undefined;
    const parse = search._cb;
    search._cb = (isMatch, ...found) => {
      parse(isMatch, ...found);
      if (isMatch) this.#boundaries += 1;
    };
    Object.defineProperty(inner, '_bparser', {
      get: () => search,
      set: (next: Inner['_bparser']) => {
        search = next;
        if (inner._complete && !this.#closed) this.#close();
      },
    });
    Object.defineProperty(inner, '_hparser', {
      get: () => header,
      set: (next: Inner['_hparser']) => {
        // What follows the end of the form is ignored, also where it is in the same chunk.
        if (this.#closed) return;
        if (!next) this.#headerBytes = header?.byteCount ?? 0;
        if (next && next.cb !== watched) {
          const told = next.cb;
          watched = (fields) => {
            this.#begin(fields);
            told(fields);
          };
          next.cb = watched;
        }
        header = next;
      },
    });
  }

  #listen(): void {
    const { fields, files, fieldBytes } = this.#limits;
    const fail = (error: unknown) => {
      if (!this.#closed) this.#listener.fail(error);
    };
    const atMost = (what: string) => () => fail(tooLarge(`The form must have at most ${what}.`));
    this.#busboy.on('error', (error) => this.#listener.fail(this.explain(error)));
    this.#busboy.on('fieldsLimit', atMost(`${fields} text fields`));
    this.#busboy.on('filesLimit', atMost(`${files} files`));
    this.#busboy.on('partsLimit', atMost(`${fields + files} parts`));
    this.#busboy.on('field', (name, value, { valueTruncated }) => {
      const part = this.#tell(name);
      if (!part) return;
      if (valueTruncated) fail(fieldTooLarge(name, fieldBytes));
      else this.#listener.field(name, Buffer.from(value, 'latin1'));
    });
    this.#busboy.on('file', (name, stream, { filename }) => {
      // Destroyed before anyone reads it, it would end the process.
      stream.on('error', () => {});
      const part = this.#tell(name);
      if (!part) return;
      const flaw = filename === undefined ? undefined : nameFlaw(filename);
      if (flaw) fail(invalid([{ path: name, message: `the file name ${flaw}` }]));
      else this.#listener.file(name, filename, part.type, stream);
    });
  }

  /** A header is complete; busboy sees only what it needs to cut the part out. */
  #begin(header: RawHeader): void {
    const before = this.#part;
    const number = (this.#parts += 1);
    this.#part = undefined;
    try {
      if (before) throw notForm(before.number);
      if (this.#boundaries !== number) throw strayBoundary(number);
      this.#part = readHeader(number, header);
    } catch (error) {
      this.#listener.fail(error);
    }
    this.#isFile = this.#part?.isFile ?? false;
    if (this.#isFile) header['content-type'] = ['application/octet-stream'];
    else delete header['content-type'];
  }

  /** The part busboy tells now; undefined where the form has failed. */
  #tell(name: string | undefined): Part | undefined {
    const part = this.#part;
    if (!part) return undefined;
    this.#part = undefined;
    this.#told += 1;
    const error = findFlaw(part, name);
    if (!error) return part;
    this.#listener.fail(error);
    return undefined;
  }

  /** The final boundary was found. */
  #close(): void {
    if (this.#boundaries !== this.#parts + 1) this.#listener.fail(strayBoundary(this.#parts + 1));
    if (this.#part) this.#listener.fail(notForm(this.#part.number));
    this.#closed = true;
  }

  #progress(): number {
    return this.#told + this.#parts + this.#boundaries + (this.#closed ? 1 : 0);
  }

  /** `bytes` is undefined where something began or ended among them. */
  #boundQuiet(bytes: number | undefined): void {
    const inPart = this.#boundaries === this.#parts && this.#parts > 0;
    this.#quiet = bytes === undefined || (inPart && this.#isFile) ? 0 : this.#quiet + bytes;
    if (inPart) {
      const { fieldBytes } = this.#limits;
      // A boundary that has begun is no part of the value.
      if (this.#quiet <= fieldBytes + MAX_BOUNDARY_BYTES) return;
      this.#listener.fail(fieldTooLarge(this.#part?.shownName ?? '', fieldBytes));
    } else if (this.#quiet > MAX_OUTSIDE_BYTES) {
      const where = this.#parts === 0 ? 'before the first part' : 'between and after the parts';
      this.#listener.fail(tooLarge(`At most ${MAX_OUTSIDE_BYTES} bytes may stand ${where}.`));
    }
  }
}
