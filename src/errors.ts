// Domain errors. Each has a stable code callers may rely on and knows nothing of HTTP: the edges
// turn codes into statuses (src/http/problem.ts) or exit codes (src/cli.ts).

/** One thing wrong with the input. `path` names the field: `members.3.email`. */
export interface FieldError {
  path: string;
  message: string;
}

export type ErrorCode =
  | 'validation_failed'
  | 'unauthenticated'
  | 'not_found'
  | 'payload_too_large'
  | 'unsupported_media_type'
  | 'send_key_conflict'
  | 'client_exists'
  | 'template_not_found'
  | 'template_not_confirming'
  | 'consent_not_pending'
  | 'sender_not_found'
  | 'no_default_sender'
  | 'sender_in_use'
  | 'message_not_unknown'
  | 'send_is_over'
  | 'context_callback_not_configured'
  | 'email_type_not_registered'
  | 'idempotency_key_conflict'
  | 'unavailable';

export class DomainError extends Error {
  readonly code: ErrorCode;
  readonly errors: FieldError[] | undefined;

  constructor(code: ErrorCode, detail: string, errors?: FieldError[]) {
    super(detail);
    this.name = 'DomainError';
    this.code = code;
    this.errors = errors;
  }
}

/** At most this many fields are named in one answer. */
export const MAX_FIELD_ERRORS = 100;

export function invalid(errors: FieldError[], detail?: string): DomainError {
  const shown = errors.slice(0, MAX_FIELD_ERRORS);
  const first = shown[0];
  return new DomainError(
    'validation_failed',
    detail ?? (first ? `${first.path}: ${first.message}` : 'The request is not valid.'),
    shown,
  );
}

export function notFound(what: string): DomainError {
  return new DomainError('not_found', `${what} does not exist.`);
}
