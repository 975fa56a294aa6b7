// What no JSON value of a request may contain: what PostgreSQL cannot hold (NUL, lone surrogates) and
// what only an attacker sends (depth, __proto__).
import { MAX_FIELD_ERRORS, type FieldError } from './errors.ts';

const MAX_DEPTH = 64;
/** Of one body: about what 32 MB of contexts hold; a body of brackets could hold ten times that. */
const MAX_VALUES = 2_000_000;

/**
 * What no field may contain. Recursion ends at MAX_DEPTH, so depth cannot exhaust the stack, and a
 * path is put together only where a flaw is, so 32 MB of small values cost what reading them costs.
 */
export function findFlaws(root: unknown): FieldError[] {
  const flaws: FieldError[] = [];
  const names: (string | number)[] = [];
  const note = (message: string): void => {
    flaws.push({ path: names.map(shownName).join('.'), message });
  };
  let values = 0;
  const visit = (value: unknown): void => {
    if (flaws.length >= MAX_FIELD_ERRORS || values > MAX_VALUES) return;
    values += 1;
    if (values > MAX_VALUES) return note(`the body must hold at most ${MAX_VALUES} values`);
    if (typeof value === 'string') {
      const flaw = textFlaw(value);
      if (flaw) note(flaw);
    } else if (typeof value === 'number') {
      if (!Number.isFinite(value)) note('is a number too large for JSON (RFC 8259, section 6)');
    } else if (typeof value === 'object' && value !== null) {
      if (names.length >= MAX_DEPTH) return note(`must be nested at most ${MAX_DEPTH} deep`);
      if (Array.isArray(value)) {
        for (let index = 0; index < value.length; index++) visitBelow(index, value[index]);
      } else {
        for (const name of Object.keys(value)) {
          visitBelow(name, (value as Record<string, unknown>)[name]);
        }
      }
    }
  };
  const visitBelow = (name: string | number, value: unknown): void => {
    names.push(name);
    if (typeof name === 'string') {
      const flaw = name === '__proto__' ? 'must have another name' : textFlaw(name);
      if (flaw) note(flaw);
    }
    visit(value);
    names.pop();
  };
  visit(root);
  return flaws;
}

export function textFlaw(text: string): string | undefined {
  if (text.includes('\u0000')) return 'must not contain the character NUL';
  if (!text.isWellFormed()) return 'must be well-formed Unicode: it has half a surrogate pair';
  return undefined;
}

export function shownName(name: string | number): string {
  return String(name).slice(0, 255).toWellFormed().replaceAll('\u0000', '\ufffd');
}
