// What a failed query says about the database: out of reach for now, or unable to hold a value.

const NETWORK = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
]);
// Classes of SQLSTATE: connection, resources, operator intervention, system error; then single
// codes: read-only transaction, serialization failure, deadlock, database being moved.
const STATES = /^(08|53|57|58)|^(25006|40001|40P01|55006)$/u;
const POOL =
  /timeout exceeded when trying to connect|Query read timeout|Connection terminated|Cannot use a pool after calling end/u;

/** True where the same request may work later. */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(isUnavailable);
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code === 'string' && (NETWORK.has(code) || STATES.test(code))) return true;
  return typeof message === 'string' && POOL.test(message);
}

/** SQLSTATE class 22 (data exception) and 54 (limits): a value that should have been refused before. */
export function isInputError(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' && /^(22|54)[0-9A-Z]{3}$/u.test(code);
}

/** True where the statement broke the named constraint. */
export function violates(error: unknown, constraint: string): boolean {
  const { code, constraint: broken } = (error ?? {}) as { code?: unknown; constraint?: unknown };
  return typeof code === 'string' && code.startsWith('23') && broken === constraint;
}

/** True where the same transaction may succeed when it is tried again at once. */
export function isDeadlock(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  return code === '40P01';
}
