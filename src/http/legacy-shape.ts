// The answers of /api/v1: {success, message, data}, as the queue's documentation prints them.
import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { FieldError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { problemOf } from './problem.ts';

export type LegacyBody = {
  success: boolean;
  message: string;
  data: unknown;
};

export function succeeded(message: string, data: unknown): LegacyBody {
  return { success: true, message, data };
}

/** A thrown value in this shape: the status of its problem, the words of the documentation. */
export function failed(c: Context, error: unknown, log: Logger): Response {
  const problem = problemOf(error, log);
  const headers: Record<string, string> =
    problem.status === 401 ? { 'www-authenticate': 'Bearer' } : {};
  return answer(
    c,
    { success: false, message: wordsOf(problem.code, problem), data: null },
    problem.status,
    headers,
  );
}

function wordsOf(
  code: string,
  { detail, errors = [] }: { detail: string; errors?: FieldError[] },
): string {
  if (code !== 'validation_failed') return detail;
  if (detail === INVALID_EMAIL_DATA) return detail;
  const [first, ...more] = errors;
  // A message that names its field itself stands alone.
  if (!first || first.message === detail) return `Payload validation failed: ${detail}`;
  const listed = [first, ...more].map(({ path, message }) =>
    path ? `${path} ${message}` : message,
  );
  return `Payload validation failed: ${listed.join('; ')}`;
}

export const INVALID_EMAIL_DATA = 'Invalid JSON format in email_data field';

export function answer(
  c: Context,
  body: LegacyBody & { email_id?: string; attachments_processed?: number },
  status: ContentfulStatusCode = 200,
  headers: Record<string, string> = {},
): Response {
  return c.json(body, status, headers);
}
