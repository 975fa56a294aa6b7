// Turns any JSON value into an outline that can be laid out: texts, labelled fields, lists, tables.
// Pure and total: it must not throw, whatever the data. It stops after MAX_VALUES values and
// MAX_DEPTH levels and says that it left something out, so neither the number of elements nor the
// recursion of the renderers (React, the text conversion) is in the hands of the data. A single
// long text is kept whole.
import { isLink } from '../../src/templates/define.ts';
import { splitLines } from './text.tsx';

export type Outline =
  | { kind: 'text'; lines: string[]; href?: string; long: boolean }
  | { kind: 'fields'; fields: { label: string; value: Outline }[]; left_out: number }
  | { kind: 'list'; items: Outline[]; left_out: number }
  | { kind: 'table'; columns: string[]; numeric: boolean[]; rows: Outline[][]; left_out: number };

/** At most about 500 kB of markup; Gmail cuts a mail at 102 kB, and nobody reads further. */
const MAX_VALUES = 2_000;
const MAX_DEPTH = 12;

// A table has to fit a phone: about 40 letters stand in a row there, and a word should not break.
const TABLE_COLUMNS = 4;
const TABLE_CELL = 28;
const TABLE_WORDS = 40;
/** The longest value that stands beside its label; longer ones go under it. */
const LONG = 56;
const LONG_LINK = 32;

const EMPTY = '–';

/** What is left of MAX_VALUES; one counter for the whole outline. */
interface Budget {
  left: number;
}

export function outline(value: unknown): Outline {
  return outlineValue(value, 0, { left: MAX_VALUES });
}

function outlineValue(value: unknown, depth: number, budget: Budget): Outline {
  budget.left -= 1;
  if (typeof value !== 'object' || value === null) return outlineText(value);
  const size = Array.isArray(value) ? value.length : Object.keys(value).length;
  if (size === 0) return outlineText(EMPTY);
  if (depth >= MAX_DEPTH) return outlineText('(nested too deeply to be shown)');
  if (!Array.isArray(value)) return outlineFields(Object.entries(value), depth, budget);
  return outlineTable(value, budget) ?? outlineList(value, depth, budget);
}

function outlineFields(entries: [string, unknown][], depth: number, budget: Budget): Outline {
  const fields = [];
  for (const [key, value] of entries) {
    if (budget.left <= 0) break;
    fields.push({ label: humanise(key), value: outlineValue(value, depth + 1, budget) });
  }
  return { kind: 'fields', fields, left_out: entries.length - fields.length };
}

function outlineList(values: unknown[], depth: number, budget: Budget): Outline {
  const items = [];
  for (const value of values) {
    if (budget.left <= 0) break;
    // A list in a list, such as a row of a matrix, reads best on one line.
    const row = joinShort(value);
    items.push(outlineValue(row ?? value, depth + 1, budget));
  }
  return { kind: 'list', items, left_out: values.length - items.length };
}

/** A table where two or more flat objects with the same few keys have only short values. */
function outlineTable(values: unknown[], budget: Budget): Outline | undefined {
  const keys = isRecord(values[0]) ? Object.keys(values[0]) : [];
  if (values.length < 2 || keys.length < 2 || keys.length > TABLE_COLUMNS) return undefined;
  const records = values.filter(isRecord).filter((record) => hasShortValues(record, keys));
  if (records.length < values.length) return undefined;
  const widths = keys.map((key) =>
    Math.max(
      longestWord(humanise(key)),
      ...records.slice(0, MAX_VALUES).map((record) => longestWord(plainText(record[key]))),
    ),
  );
  if (widths.reduce((sum, width) => sum + width) > TABLE_WORDS) return undefined;

  const shown = records.slice(0, Math.max(1, Math.floor(budget.left / keys.length)));
  budget.left -= shown.length * keys.length;
  return {
    kind: 'table',
    columns: keys.map(humanise),
    numeric: keys.map((key) => shown.every((record) => typeof record[key] === 'number')),
    rows: shown.map((record) => keys.map((key) => outlineText(record[key]))),
    left_out: records.length - shown.length,
  };
}

function hasShortValues(record: Record<string, unknown>, keys: string[]): boolean {
  if (Object.keys(record).length !== keys.length) return false;
  return keys.every((key) => Object.hasOwn(record, key) && isShort(record[key]));
}

function longestWord(text: string): number {
  return Math.max(...text.split(/[\s-]/u).map((word) => word.length));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function joinShort(value: unknown): string | undefined {
  if (!Array.isArray(value) || value.length === 0 || value.length > 20) return undefined;
  return value.every(isShort) ? value.map(plainText).join(', ') : undefined;
}

function isShort(value: unknown): boolean {
  if (typeof value === 'string') return value.length <= TABLE_CELL && !/[\r\n]/u.test(value);
  return typeof value !== 'object' || value === null;
}

function outlineText(value: unknown): Outline {
  const text = plainText(value);
  const lines = splitLines(text);
  const long = lines.length > 1 || text.length > LONG;
  if (!isLink(text)) return { kind: 'text', lines, long };
  // The text conversion prints the URL of a link again unless it equals the link's text, and it
  // takes `mailto:` off before it compares.
  const words = text.replace(/^mailto:/u, '');
  return { kind: 'text', lines: [words], href: text, long: words.length > LONG_LINK };
}

function plainText(value: unknown): string {
  if (value === true) return 'Yes';
  if (value === false) return 'No';
  if (typeof value === 'number') return String(value);
  if (typeof value !== 'string') return EMPTY;
  // Control characters, line breaks and tabs apart, are not allowed in HTML.
  const text = value.replaceAll(/(?![\t\r\n])\p{Cc}/gu, ' ').trim();
  return text === '' ? EMPTY : text;
}

// Short words that are written in capitals.
const INITIALS = new Set(['id', 'url', 'ip', 'api', 'vat']);

/** `first_name`, `firstName` and `first-name` become `First name`; other scripts stay as they are. */
export function humanise(key: string): string {
  const words = key
    .slice(0, 200)
    .replaceAll(/[_\s]+/gu, ' ')
    .replaceAll(/(?<=[a-z]{2})-(?=[a-z]{2})/giu, ' ')
    .replaceAll(/(?<=[a-z0-9])(?=[A-Z][a-z])/gu, ' ')
    .replaceAll(/(?<=[a-z])(?=[A-Z]+$)|(?<=[A-Z])(?=[A-Z][a-z])/gu, ' ')
    .trim()
    .split(' ')
    .map((word) => (INITIALS.has(word.toLowerCase()) ? word.toUpperCase() : word))
    .map((word, index) =>
      index > 0 && /^[A-Z][a-z]+$/u.test(word) && !key.includes(' ') ? word.toLowerCase() : word,
    )
    .join(' ');
  if (words === '') return EMPTY;
  return words.replace(/^\p{Ll}/u, (letter) => letter.toUpperCase());
}
