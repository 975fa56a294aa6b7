// What a row of a CSV file says: a header names the columns, and a row becomes the member that the API
// would have been given as JSON. A header that will not do is a validation_failed.
import { invalid, type DomainError } from '../errors.ts';
import { shownName, textFlaw } from '../flaws.ts';

/** A row and the line on which it begins; the first line of a file is 1. */
export type GivenRow = { line: number; item: unknown } | { line: number; message: string };

const OWN_COLUMNS = ['source_object_key', 'email', 'name', 'consent', 'metadata'] as const;
type OwnColumn = (typeof OWN_COLUMNS)[number];

/**
 * Rows of values under a header. An empty name, consent or metadata is one that is not given. Columns of
 * other names are strings of the metadata; `metadata` itself is a JSON object, which they are added to.
 */
export class Table {
  #columns: string[] | undefined;
  #at: Partial<Record<OwnColumn, number>> = {};
  #others: [name: string, at: number][] = [];

  /** undefined for the header, which is the first row. @throws validation_failed for a bad header */
  row(values: string[], line: number): GivenRow | undefined {
    if (!this.#columns) return this.#readHeader(values);
    if (values.length !== this.#columns.length) {
      const message = `member: has ${values.length} columns where the header has ${this.#columns.length}`;
      return { line, message };
    }
    const value = (name: OwnColumn) => values[this.#at[name] ?? -1];
    const item: Record<string, unknown> = {
      source_object_key: value('source_object_key'),
      email: value('email'),
    };
    for (const name of ['name', 'consent'] as const) if (value(name)) item[name] = value(name);
    const given = value('metadata');
    const metadata = given ? parseObject(given) : undefined;
    if (given && !metadata) return { line, message: 'metadata: must be a JSON object' };
    if (metadata || this.#others.length > 0) {
      const other = Object.fromEntries(this.#others.map(([name, at]) => [name, values[at]]));
      item['metadata'] = metadata ? { ...metadata, ...other } : other;
    }
    return { line, item };
  }

  #readHeader(columns: string[]): undefined {
    const names = new Set<string>();
    columns.forEach((name, at) => {
      const flaw =
        name === '__proto__'
          ? 'must have another name'
          : name === ''
            ? 'must have a name'
            : textFlaw(name);
      const path = name === '' ? `column ${at + 1}` : shownName(name);
      if (flaw) throw badHeader(path, flaw);
      if (names.has(name)) throw badHeader(path, 'stands twice in the header');
      names.add(name);
      if (isOwn(name)) this.#at[name] = at;
      else this.#others.push([name, at]);
    });
    for (const name of ['source_object_key', 'email'] as const) {
      if (this.#at[name] === undefined)
        throw badHeader(name, 'is a required column, and not in the header');
    }
    this.#columns = columns;
  }
}

function isOwn(name: string): name is OwnColumn {
  return (OWN_COLUMNS as readonly string[]).includes(name);
}

function parseObject(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function badHeader(path: string, message: string): DomainError {
  return invalid([{ path, message }]);
}
