// What a template file in emails/ declares, and the field types its context schemas are made of.
// A template is a pure function of its two contexts: the same contexts give the same markup, so a
// send can be rendered again after a crash. Nothing here does I/O.
import type { ReactElement } from 'react';
import * as v from 'valibot';

/** `transactional` mail goes to everyone not suppressed; `marketing` mail needs consent, always. */
export type Category = 'transactional' | 'marketing';

/**
 * The schema of one context. A `strictObject` refuses unknown fields, so a misspelt one is an
 * error at the trigger; a `record` takes any fields.
 */
export type ContextSchema = v.GenericSchema<unknown, Record<string, unknown>>;

export interface TemplateProps<Shared extends ContextSchema, Recipient extends ContextSchema> {
  shared: v.InferOutput<Shared>;
  recipient: v.InferOutput<Recipient>;
}

export interface TemplateDefinition<
  Shared extends ContextSchema = ContextSchema,
  Recipient extends ContextSchema = ContextSchema,
> {
  category: Category;
  /** One line. Control characters in the result are replaced by spaces before it is sent. */
  subject: (props: TemplateProps<Shared, Recipient>) => string;
  /** The part of the context every member of a send shares. */
  sharedSchema: Shared;
  /** The personal part. A member without one counts as `{}`. */
  recipientSchema: Recipient;
  /** Shown by the API, used by preview where a context is omitted. Fits the schemas (tested). */
  sample: { shared: v.InferInput<Shared>; recipient: v.InferInput<Recipient> };
  /** The whole document, `<Html>` included. */
  component: (props: TemplateProps<Shared, Recipient>) => ReactElement;
}

/** Identity, for the types: `subject` and `component` get their props from the two schemas. */
export function defineTemplate<Shared extends ContextSchema, Recipient extends ContextSchema>(
  definition: TemplateDefinition<Shared, Recipient>,
): TemplateDefinition<Shared, Recipient> {
  return definition;
}

// Control characters other than tab, LF and CR have no place in mail text; a bare CR or LF in a
// subject would start a header of the caller's choosing (RFC 5322, section 2.2).
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/u;
const CONTROLS_BUT_BREAKS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/u;

/** One line of text, 1–`max` characters (default 500), no control characters. */
export function line(max = 500) {
  return v.pipe(
    v.string(),
    v.nonEmpty('must not be empty'),
    v.maxLength(max, `must be at most ${max} characters`),
    v.check((text) => !CONTROLS.test(text), 'must be one line without control characters'),
  );
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

/** An RFC 3339 timestamp with its offset (`2026-02-01T23:00:00Z`), or a date (`2026-02-01`). */
export function moment() {
  return v.pipe(
    v.string(),
    v.check(isMoment, 'must be an RFC 3339 timestamp such as 2026-02-01T23:00:00Z, or a date'),
  );
}

export function isLink(text: string): boolean {
  if (/[\s\u0000-\u001f\u007f<>"]/u.test(text) || !/^(https?:\/\/|mailto:)/iu.test(text)) return false;
  return URL.canParse(text);
}

function isMoment(text: string): boolean {
  const shape = /^(\d{4}-\d{2}-\d{2})(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$/u.exec(text);
  if (!shape) return false;
  // Date.parse takes 31 February as 3 March; a date that does not read back the same is refused.
  const day = new Date(`${shape[1]}T00:00:00Z`);
  return !Number.isNaN(Date.parse(text)) && day.toISOString().slice(0, 10) === shape[1];
}
