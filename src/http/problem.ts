// Errors as RFC 9457 problems: a domain error's code becomes a status here and nowhere else. What is
// not a domain error is our fault or the database's: 500 or 503, logged, nothing of it told.
import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { isInputError, isUnavailable } from '../database/failures.ts';
import { DomainError, type ErrorCode, type FieldError } from '../errors.ts';
import type { Logger } from '../log.ts';

export interface Problem {
  type: string;
  title: string;
  status: ContentfulStatusCode;
  code: ErrorCode | 'internal_error';
  detail: string;
  errors?: FieldError[];
}

const STATUS: Record<ErrorCode, [ContentfulStatusCode, string]> = {
  validation_failed: [400, 'The request is not valid'],
  unauthenticated: [401, 'A valid API key is needed'],
  not_found: [404, 'Not found'],
  payload_too_large: [413, 'The body is too large'],
  unsupported_media_type: [415, 'The content type is not supported'],
  send_key_conflict: [409, 'The send_key was used for a different request'],
  client_exists: [409, 'The client exists already'],
  template_not_found: [422, 'The template does not exist'],
  template_not_confirming: [422, 'The template shows no confirmation link'],
  consent_not_pending: [409, 'There is nothing to confirm'],
  sender_not_found: [422, 'The sender does not exist'],
  no_default_sender: [422, 'There is no default sender'],
  sender_in_use: [409, 'The sender is in use'],
  message_not_unknown: [409, 'The outcome of the message is known'],
  send_is_over: [409, 'The send is over'],
  context_callback_not_configured: [422, 'There is no URL to fetch contexts from'],
  email_type_not_registered: [422, 'The email type is not registered'],
  idempotency_key_conflict: [409, 'The Idempotency-Key was used for a different request'],
  unavailable: [503, 'The service is not available right now'],
};

/** Any thrown value as a problem. */
export function problemOf(error: unknown, log: Logger): Problem {
  const known = asDomainError(error);
  if (known) {
    const [status, title] = STATUS[known.code];
    const { code, message: detail, errors } = known;
    if (status >= 500) log.error({ error: (error as Error).message }, 'request failed');
    return {
      type: `urn:rosterpost:problem:${code}`,
      title,
      status,
      code,
      detail,
      ...(errors && { errors }),
    };
  }
  log.error({ error: (error as Error).message, stack: (error as Error).stack }, 'request failed');
  return {
    type: 'urn:rosterpost:problem:internal_error',
    title: 'Internal error',
    status: 500,
    code: 'internal_error',
    detail: 'The request could not be processed. Nothing was written.',
  };
}

function asDomainError(error: unknown): DomainError | undefined {
  if (error instanceof DomainError) return error;
  if (isUnavailable(error)) {
    return new DomainError('unavailable', 'The database cannot be reached or written. Try again.');
  }
  if (isInputError(error)) {
    return new DomainError('validation_failed', 'A value of the request cannot be stored.');
  }
  return undefined;
}

export function problemResponse(c: Context, problem: Problem): Response {
  return c.body(JSON.stringify(problem), problem.status, {
    'content-type': 'application/problem+json',
    ...(problem.status === 401 && { 'www-authenticate': 'Bearer' }),
    ...(problem.status === 503 && { 'retry-after': '5' }),
  });
}
