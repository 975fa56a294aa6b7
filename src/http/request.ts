// Reading requests: JSON bodies, query and path. Everything is checked before it reaches the domain,
// and every error names the field. What PostgreSQL cannot hold (NUL, lone surrogates) or what only
// an attacker sends (depth, __proto__) is refused here, once for all routes.
import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import * as v from 'valibot';
import { DomainError, invalid, notFound } from '../errors.ts';
import { isKey, issuesToErrors, isUuid } from '../fields.ts';
import { findFlaws, shownName, textFlaw } from '../flaws.ts';
import { MAX_LIMIT } from '../paging.ts';
import { parseAddress, type Address } from '../address.ts';

export const MIB = 1024 * 1024;

/**
 * `unchecked` names a field whose flaws the caller looks for, part by part.
 * @throws unsupported_media_type, payload_too_large, validation_failed
 */
export async function readJson<Schema extends v.GenericSchema>(
  c: Context,
  schema: Schema,
  limit = MIB,
  { unchecked }: { unchecked?: string } = {},
): Promise<v.InferOutput<Schema>> {
  const type = (c.req.header('content-type') ?? '').split(';')[0]!.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new DomainError(
      'unsupported_media_type',
      'The body must be JSON: content-type application/json.',
    );
  }
  const value = parseJson(await readBytes(c, limit));
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(
      [{ path: '', message: 'the body must be a JSON object' }],
      'The body must be a JSON object.',
    );
  }
  const checked = unchecked === undefined ? value : { ...value, [unchecked]: undefined };
  const flaws = findFlaws(checked);
  if (flaws.length > 0) throw invalid(flaws);
  const parsed = v.safeParse(schema, value);
  if (!parsed.success) throw invalid(issuesToErrors(parsed.issues));
  return parsed.output;
}

/** Like {@link readJson}; an empty body counts as `{}`. */
export async function readOptionalJson<Schema extends v.GenericSchema>(
  c: Context,
  schema: Schema,
): Promise<v.InferOutput<Schema>> {
  const header = (name: string) => c.req.header(name);
  const hasBody =
    header('transfer-encoding') !== undefined || Number(header('content-length') ?? 0) > 0;
  return hasBody ? readJson(c, schema) : v.parse(schema, {});
}

async function readBytes(c: Context, limit: number): Promise<Buffer> {
  const tooLarge = () =>
    new DomainError(
      'payload_too_large',
      `The body must be at most ${limit / MIB} MiB for this request.`,
    );
  if (Number(c.req.header('content-length') ?? 0) > limit) throw tooLarge();
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of c.req.raw.body ?? []) {
      size += part.length;
      if (size > limit) throw tooLarge();
      parts.push(part);
    }
  } catch (error) {
    if (error instanceof DomainError) throw error;
    // The client has left: nobody reads this answer.
    throw invalid([{ path: '', message: 'the body ended early' }], 'The body ended early.');
  }
  return Buffer.concat(parts);
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    const why = error instanceof SyntaxError ? 'is not valid JSON' : 'is not valid UTF-8';
    throw invalid([{ path: '', message: `the body ${why}` }], `The body ${why}.`);
  }
}

/** @throws validation_failed, also for a parameter that is not known or given twice */
export function readQuery<Entries extends v.ObjectEntries>(
  c: Context,
  entries: Entries,
): v.InferOutput<v.StrictObjectSchema<Entries, undefined>> {
  // Not hono's reading of it, which loses a parameter called __proto__.
  const given = new Map<string, string>();
  for (const [name, value] of new URL(c.req.url).searchParams) {
    if (given.has(name)) throw invalid([{ path: shownName(name), message: 'must be given once' }]);
    given.set(name, value);
  }
  const query: unknown = Object.fromEntries(given);
  const flaws = findFlaws(query);
  if (flaws.length > 0) throw invalid(flaws);
  const parsed = v.safeParse(v.strictObject(entries), query);
  if (!parsed.success) throw invalid(issuesToErrors(parsed.issues));
  return parsed.output;
}

const limitMessage = `must be a whole number from 1 to ${MAX_LIMIT}`;

/** The query of a paged list, beside its filters. */
export const PAGE_QUERY = {
  cursor: v.optional(v.string()),
  limit: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,9}$/u, limitMessage),
      v.transform(Number),
      v.minValue(1, limitMessage),
      v.maxValue(MAX_LIMIT, limitMessage),
    ),
  ),
};

/** For a GET that takes none. @throws validation_failed */
export const noQuery = createMiddleware(async (c, next) => {
  readQuery(c, {});
  await next();
});

/** A key in the path. @throws validation_failed */
export function keyParam(c: Context, name: string): string {
  const text = c.req.param(name) ?? '';
  if (isKey(text) && !textFlaw(text)) return text;
  throw invalid([
    { path: name, message: 'must be 1 to 255 characters without "/" and control characters' },
  ]);
}

/** An address in the path. @throws validation_failed */
export function addressParam(c: Context, name = 'email'): Address {
  return readAddress(c.req.param(name) ?? '', name);
}

/** @throws validation_failed */
export function readAddress(text: string, path: string): Address {
  const parsed = parseAddress(text);
  if (typeof parsed === 'string') throw invalid([{ path, message: parsed }]);
  return parsed;
}

/** A send_key in the path; what cannot be stored names nothing. @throws not_found */
export function sendKeyParam(c: Context): string {
  const text = c.req.param('send_key') ?? '';
  if (!textFlaw(text)) return text;
  throw notFound('The send');
}

/** An id in the path; what is no UUID names nothing. @throws not_found */
export function idParam(c: Context, what: string): string {
  const text = c.req.param('id') ?? '';
  if (isUuid(text)) return text.toLowerCase();
  throw notFound(what);
}
