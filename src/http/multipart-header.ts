// What the header of a part says, and everything that can be wrong with it. Also the words for what is
// wrong with a form. Rules: RFC 7578 (multipart/form-data), RFC 2046 section 5.1.1 (multipart).
import { isUtf8 } from 'node:buffer';
import { MIMEType } from 'node:util';
import { DomainError, invalid } from '../errors.ts';

/** Browsers send two header fields a part, mail libraries up to six. */
const MAX_HEADER_FIELDS = 20;
const MAX_NAME_BYTES = 255;

/** By names in lower case; values are bytes as latin1. */
export type RawHeader = Record<string, string[] | undefined>;

export interface Part {
  /** The first is 1. */
  number: number;
  /** For messages, until the true one is known. */
  shownName: string;
  type: string;
  isFile: boolean;
  /** Told when the name of the part is known. */
  flaw: string | undefined;
}

/** @throws what a header says of a form that cannot be cut into parts; the rest is the part's flaw */
export function readHeader(number: number, header: RawHeader): Part {
  if (Object.values(header).flat().length > MAX_HEADER_FIELDS) {
    throw tooLarge(`Part ${number} must have at most ${MAX_HEADER_FIELDS} header fields.`);
  }
  const only = (name: string): string => {
    const values = header[name] ?? [];
    if (values.length > 1) throw malformed(`Part ${number} has ${name} more than once.`);
    return values[0]?.trim() ?? '';
  };
  const disposition = only('content-disposition');
  if (disposition === '') throw notForm(number);
  const params = [...disposition.matchAll(PARAMETER)].map(
    ([, name, value]) => [name!.toLowerCase(), value!] as const,
  );
  const names = new Set(params.map(([name]) => name));
  const type = readType(only('content-type'));
  const isFile =
    names.has('filename') || names.has('filename*') || type?.essence === 'application/octet-stream';
  const declared = only('content-type') !== '';
  return {
    number,
    shownName: shownName(params),
    type: declared ? (type?.essence ?? '') : '',
    isFile,
    flaw:
      dispositionFlaw(disposition, params) ??
      typeFlaw(type, isFile) ??
      encodingFlaw(only('content-transfer-encoding')),
  };
}

function shownName(params: (readonly [string, string])[]): string {
  const value = params.find(([name]) => name === 'name')?.[1] ?? '';
  return shown(Buffer.from(value.replaceAll('"', ''), 'latin1').toString());
}

const PARAMETER = /;\s*([^\s=;]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;\s]*)/gu;

/** Without one, a part is text/plain (RFC 7578, section 4.4). */
function readType(text: string): MIMEType | undefined {
  try {
    return new MIMEType(text === '' ? 'text/plain' : text);
  } catch {
    return undefined;
  }
}

function dispositionFlaw(
  disposition: string,
  params: (readonly [string, string])[],
): string | undefined {
  if (!isUtf8(Buffer.from(disposition, 'latin1'))) return 'has a name that is not valid UTF-8';
  const names = new Set<string>();
  for (const [name, value] of params) {
    if (names.has(name)) {
      return `has the parameter ${shown(name)} more than once in its Content-Disposition`;
    }
    names.add(name);
    if (name === 'filename*' && !isExtended(value)) return 'has a filename* that is not UTF-8';
  }
  return undefined;
}

/** charset'language'percent-encoded, of UTF-8 only (RFC 8187, section 3.2). */
function isExtended(value: string): boolean {
  const encoded = /^utf-?8'[^']*'(.*)$/iu.exec(value)?.[1];
  try {
    return encoded !== undefined && decodeURIComponent(encoded) !== '';
  } catch {
    return false;
  }
}

function typeFlaw(type: MIMEType | undefined, isFile: boolean): string | undefined {
  if (!type) return 'has a malformed Content-Type';
  if (type.type === 'multipart') {
    return 'must not be a multipart itself; repeat the field (RFC 7578, section 4.3)';
  }
  const charset = type.params.get('charset') ?? 'utf-8';
  if (isFile || /^(?:utf-?8|us-ascii|ascii)$/iu.test(charset)) return undefined;
  return `must be UTF-8, not charset ${shown(charset)}`;
}

/** HTTP carries every byte; an encoding of a part is deprecated (RFC 7578, section 4.7). */
function encodingFlaw(encoding: string): string | undefined {
  if (/^(?:|7bit|8bit|binary)$/iu.test(encoding)) return undefined;
  return `must be sent as it is, without Content-Transfer-Encoding ${shown(encoding)}`;
}

export function findFlaw(part: Part, name: string | undefined): DomainError | undefined {
  if (name === undefined) return malformed(`Part ${part.number} has no name.`);
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) {
    return tooLarge(
      `The field name of part ${part.number} must be at most ${MAX_NAME_BYTES} bytes.`,
    );
  }
  const flaw = nameFlaw(name);
  if (flaw) return invalid([{ path: shown(name), message: `the field name ${flaw}` }]);
  return part.flaw === undefined ? undefined : invalid([{ path: name, message: part.flaw }]);
}

export function nameFlaw(name: string): string | undefined {
  if (name.includes('\0')) return 'must not contain the character NUL';
  if (/[\r\n]/u.test(name)) return 'must not contain a line break';
  return undefined;
}

/** Fit for a message: short and printable. */
function shown(text: string): string {
  return text
    .slice(0, 100)
    .toWellFormed()
    .replaceAll(/[\0-\x1f\x7f]/gu, '\ufffd');
}

export function notForm(number: number): DomainError {
  return malformed(
    `Part ${number} must have a well-formed header Content-Disposition: form-data; name="…" ` +
      '(RFC 7578, section 4.2).',
  );
}

/** The boundary is followed by something else: what came after it would be lost. */
export function strayBoundary(number: number): DomainError {
  return malformed(
    `A boundary before part ${number} is not followed by CR LF or "--" (RFC 2046, section 5.1.1).`,
  );
}

export function endsEarly(parts: number): DomainError {
  return malformed(
    parts === 0
      ? 'The body has no part: each begins with CR LF, "--" and the boundary (RFC 2046).'
      : `The body ends early: the final boundary is missing after part ${parts}.`,
  );
}

export function fieldTooLarge(name: string, bytes: number): DomainError {
  return tooLarge(`The field ${name} must be at most ${bytes} bytes.`);
}

export function malformed(detail: string): DomainError {
  return new DomainError('validation_failed', detail);
}

export function tooLarge(detail: string): DomainError {
  return new DomainError('payload_too_large', detail);
}
