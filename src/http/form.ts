// Reading the small form of a recipient's page or of a mail program: a few KiB, urlencoded or multipart
// (RFC 8058 leaves the choice to the sender of it), or nothing at all.
import type { Context } from 'hono';

const MOST_BYTES = 4096;

export class FormError extends Error {
  readonly status: 400 | 413 | 415;

  constructor(status: 400 | 413 | 415) {
    super(`form refused: ${status}`);
    this.status = status;
  }
}

/** The fields by name, the first of each; none for an empty body. @throws FormError */
export async function readForm(c: Context): Promise<Map<string, string>> {
  const bytes = await readBytes(c);
  if (bytes.length === 0) return new Map();
  const header = c.req.header('content-type') ?? '';
  const type = header.split(';')[0]!.trim().toLowerCase();
  if (type === 'application/x-www-form-urlencoded')
    return firstOfEach(new URLSearchParams(bytes.toString('utf8')));
  if (type !== 'multipart/form-data') throw new FormError(415);
  try {
    const parsed = await new Response(new Uint8Array(bytes), {
      headers: { 'content-type': header },
    }).formData();
    return firstOfEach(parsed);
  } catch {
    throw new FormError(400);
  }
}

async function readBytes(c: Context): Promise<Buffer> {
  if (Number(c.req.header('content-length') ?? 0) > MOST_BYTES) throw new FormError(413);
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of c.req.raw.body ?? []) {
      size += part.length;
      if (size > MOST_BYTES) throw new FormError(413);
      parts.push(part);
    }
  } catch (error) {
    // The client has left: nobody reads this answer.
    throw error instanceof FormError ? error : new FormError(400);
  }
  return Buffer.concat(parts);
}

function firstOfEach(fields: Iterable<[string, unknown]>): Map<string, string> {
  const first = new Map<string, string>();
  for (const [name, value] of fields)
    if (typeof value === 'string' && !first.has(name)) first.set(name, value);
  return first;
}
