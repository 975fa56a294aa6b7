// Field types shared by request bodies and template contexts: what a name, a key, an address or a
// link may be. Each says in its message what would be right. Strings that PostgreSQL cannot hold
// (NUL, lone surrogates) are refused before, where JSON is read.
import * as v from 'valibot';
import { parseAddress } from './address.ts';
import type { JsonObject } from './database/schema.ts';
import type { FieldError } from './errors.ts';

/** valibot's issues as field errors; `at` is the path of the value that was checked. */
export function issuesToErrors(issues: readonly v.BaseIssue<unknown>[], at = ''): FieldError[] {
  return issues.map((issue) => {
    const below = v.getDotPath(issue) ?? '';
    const path = at && below ? `${at}.${below}` : at || below;
    return { path, message: messageOf(issue) };
  });
}

const EXPECTED: Record<string, string> = {
  array: 'an array',
  boolean: 'true or false',
  number: 'a number',
  object: 'an object',
  record: 'an object',
  strict_object: 'an object',
  string: 'a string',
};

/** In words of JSON: valibot's own messages speak of its types. A message of ours stands as it is. */
function messageOf(issue: v.BaseIssue<unknown>): string {
  if (issue.message.startsWith('Invalid key: Expected never')) return 'is not a known field';
  if (issue.received === 'undefined') return 'is required';
  const expected = EXPECTED[issue.type];
  return issue.message.startsWith('Invalid type') && expected
    ? `must be ${expected}`
    : issue.message;
}

// Control characters other than tab, LF and CR have no place in mail text; a bare CR or LF in a
// subject would start a header of the caller's choosing (RFC 5322, section 2.2).
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/u;
const CONTROLS_BUT_BREAKS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/u;

/** One line of text, 1–`max` code points (default 500), no control characters. */
export function line(max = 500) {
  return v.pipe(
    v.string(),
    v.nonEmpty('must not be empty'),
    v.check((text) => hasAtMost(max, text), `must be at most ${max} characters`),
    v.metadata({ maxLength: max }), // for the JSON Schema, which has no words for the check
    v.check((text) => !CONTROLS.test(text), 'must be one line without control characters'),
  );
}

/** Counted in code points, as PostgreSQL's char_length does: an emoji is one character. */
function hasAtMost(max: number, text: string): boolean {
  return text.length <= max || (text.length <= 2 * max && Array.from(text).length <= max);
}

/** Text of several lines, 1–`max` characters (default 100,000). */
export function paragraphs(max = 100_000) {
  return v.pipe(
    v.string(),
    v.nonEmpty('must not be empty'),
    v.maxLength(max, `must be at most ${max} characters`),
    v.check((text) => !CONTROLS_BUT_BREAKS.test(text), 'must not contain control characters'),
  );
}

/** An absolute http, https or mailto URL of at most 2,048 characters; no other scheme is linked. */
export function link() {
  return v.pipe(
    v.string(),
    v.maxLength(2048, 'must be at most 2048 characters'),
    v.check(isLink, 'must be an absolute http, https or mailto URL'),
  );
}

/** A key that can stand in a URL path: 1–255 characters, no slash, no control characters. */
export function key() {
  return v.pipe(
    v.string(),
    v.check(isKey, 'must be 1 to 255 characters without "/" and control characters'),
  );
}

export function isKey(text: string): boolean {
  return (
    text !== '' &&
    hasAtMost(255, text) &&
    !text.includes('/') &&
    !CONTROLS.test(text) &&
    !RESERVED.has(text)
  );
}

/** Names that mean something else in a URL path. */
const RESERVED = new Set(['.', '..']);

export function isUuid(text: string): boolean {
  return v.is(v.pipe(v.string(), v.uuid()), text);
}

/** An email address, read by {@link parseAddress}; the output is the parsed address. */
export function address() {
  return v.pipe(
    v.string(),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const parsed = parseAddress(dataset.value);
      if (typeof parsed !== 'string') return parsed;
      addIssue({ message: parsed });
      return NEVER;
    }),
  );
}

/** A JSON object of any fields. */
export function jsonObject() {
  return v.custom<JsonObject>(
    (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
    'must be an object',
  );
}

const FREE_DATA_BYTES = 256 * 1024;

/** Data of the client (metadata, attributes, contexts): an object of at most 256 KiB of JSON. */
export function freeData() {
  return v.pipe(
    jsonObject(),
    v.check(
      (value) => Buffer.byteLength(JSON.stringify(value)) <= FREE_DATA_BYTES,
      'must be at most 256 KiB of JSON',
    ),
  );
}

/** A moment from 1970 to 9999, as an RFC 3339 timestamp with its offset. */
export function timestamp() {
  return v.pipe(
    v.string(),
    v.check(
      (text) => text.includes('T') && isMoment(text) && Date.parse(text) >= 0,
      'must be an RFC 3339 timestamp with its offset, such as 2026-02-01T23:00:00Z',
    ),
  );
}

/** An RFC 3339 timestamp with its offset (`2026-02-01T23:00:00Z`), or a date (`2026-02-01`). */
export function moment() {
  return v.pipe(
    v.string(),
    v.check(isMoment, 'must be an RFC 3339 timestamp such as 2026-02-01T23:00:00Z, or a date'),
  );
}

export function isLink(text: string): boolean {
  if (
    /[\s\u0000-\u001f\u007f<>"\p{Bidi_Control}]/u.test(text) ||
    !/^(https?:\/\/|mailto:)/iu.test(text)
  )
    return false;
  return URL.canParse(text);
}

function isMoment(text: string): boolean {
  const shape =
    /^(\d{4}-\d{2}-\d{2})(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$/u.exec(text);
  if (!shape) return false;
  // Date.parse takes 31 February as 3 March; a date that does not read back the same is refused.
  const day = new Date(`${shape[1]}T00:00:00Z`);
  return !Number.isNaN(Date.parse(text)) && day.toISOString().slice(0, 10) === shape[1];
}
