// The rows of a file to import, read as a stream: CSV (RFC 4180, UTF-8, a header) or NDJSON. A row that
// is wrong is told with its line; a file that is wrong (header, quoting, encoding, a line without end)
// is a validation_failed, and nothing of it may be used. Memory: one chunk, and one line of 1 MiB.
import { finished } from 'node:stream/promises';
import { CsvError, Parser } from 'csv-parse';
import { invalid, type DomainError } from '../errors.ts';
import { Table, type GivenRow } from './import-table.ts';

export const IMPORT_FORMATS = ['csv', 'ndjson'] as const;
export type ImportFormat = (typeof IMPORT_FORMATS)[number];

/** Of a line, or of a CSV row of several. */
const LONGEST_LINE = 1024 * 1024;

/** @throws validation_failed, when the flaw is reached */
export async function* readRows(
  format: ImportFormat,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<GivenRow[]> {
  const reader = format === 'csv' ? new CsvReader() : new LineReader(readJsonLine);
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const decode = (chunk?: Uint8Array) => {
    try {
      return decoder.decode(chunk, { stream: chunk !== undefined });
    } catch {
      throw badLine(reader.line, 'is not valid UTF-8, or one after it');
    }
  };
  for await (const chunk of chunks) yield await reader.read(decode(chunk));
  decode();
  yield await reader.end();
}

interface Reader {
  /** Of the next row. */
  line: number;
  read(text: string): Promise<GivenRow[]> | GivenRow[];
  end(): Promise<GivenRow[]> | GivenRow[];
}

type ReadLine = (text: string, line: number) => GivenRow | undefined;

/** One row a line; blank lines are passed over. */
class LineReader implements Reader {
  line = 1;
  readonly #readLine: ReadLine;
  #rest = '';

  constructor(readLine: ReadLine) {
    this.#readLine = readLine;
  }

  /** What follows the last line break. */
  get rest(): string {
    return this.#rest;
  }

  read(text: string): GivenRow[] {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    if (this.#rest.length > LONGEST_LINE) throw badLine(this.line + lines.length, TOO_LONG);
    return this.#take(lines);
  }

  end(): GivenRow[] {
    return this.#take([this.#rest]);
  }

  #take(lines: string[]): GivenRow[] {
    const rows: GivenRow[] = [];
    for (const text of lines) {
      if (text.length > LONGEST_LINE) throw badLine(this.line, TOO_LONG);
      const row = this.#readLine(text.endsWith('\r') ? text.slice(0, -1) : text, this.line);
      if (row) rows.push(row);
      this.line += 1;
    }
    return rows;
  }
}

function readJsonLine(text: string, line: number): GivenRow | undefined {
  if (text.trim() === '') return undefined;
  try {
    return { line, item: JSON.parse(text) };
  } catch {
    return { line, message: 'member: is not valid JSON' };
  }
}

/**
 * Without a quotation mark CSV is lines of values between commas, which is read ten times faster than
 * csv-parse reads it. From the first one on csv-parse has the rest.
 */
class CsvReader implements Reader {
  readonly #table = new Table();
  readonly #plain = new LineReader((text, line) =>
    text === '' ? undefined : this.#table.row(text.split(','), line),
  );
  #quoted: QuotedCsvReader | undefined;
  #cr = '';

  get line(): number {
    return (this.#quoted ?? this.#plain).line;
  }

  read(text: string): Promise<GivenRow[]> | GivenRow[] {
    if (this.#quoted) return this.#quoted.read(text);
    // The last CR may belong to an LF that is to come; one without is a line break, too.
    const whole = this.#cr + text;
    this.#cr = whole.endsWith('\r') ? '\r' : '';
    const known = this.#cr === '' ? whole : whole.slice(0, -1);
    if (!known.includes('"') && !/\r(?!\n)/u.test(known)) return this.#plain.read(known);
    this.#quoted = new QuotedCsvReader(this.#table, this.#plain.line);
    return this.#quoted.read(this.#plain.rest + whole);
  }

  end(): Promise<GivenRow[]> | GivenRow[] {
    return (this.#quoted ?? this.#plain).end();
  }
}

class QuotedCsvReader implements Reader {
  line: number;
  readonly #parser: Parser;
  #rows: GivenRow[] = [];
  #blank = 0;
  #lines = 0;

  constructor(table: Table, line: number) {
    this.line = line;
    this.#parser = new Parser({
      relax_column_count: true,
      skip_empty_lines: true,
      record_delimiter: ['\r\n', '\n', '\r'],
      max_record_size: LONGEST_LINE,
      on_record: (values: string[], { lines, empty_lines }) => {
        this.line += empty_lines - this.#blank;
        const row = table.row(values, this.line);
        if (row) this.#rows.push(row);
        // csv-parse counts a CR LF between quotation marks as two lines.
        const isOneLine = lines - this.#lines === 1 + empty_lines - this.#blank;
        this.line += 1 + (isOneLine ? 0 : values.reduce((sum, text) => sum + breaksIn(text), 0));
        this.#lines = lines;
        this.#blank = empty_lines;
        return null;
      },
    });
    this.#parser.on('error', () => {}); // told by write and finished
    this.#parser.resume();
  }

  async read(text: string): Promise<GivenRow[]> {
    await new Promise<void>((resolve, reject) => {
      this.#parser.write(text, (error) => (error ? reject(this.#explain(error)) : resolve()));
    });
    return this.#taken();
  }

  async end(): Promise<GivenRow[]> {
    this.#parser.end();
    await finished(this.#parser).catch((error: unknown) => {
      throw this.#explain(error);
    });
    return this.#taken();
  }

  #taken(): GivenRow[] {
    const rows = this.#rows;
    this.#rows = [];
    return rows;
  }

  #explain(error: unknown): unknown {
    if (!(error instanceof CsvError)) return error;
    if (error.code === 'CSV_MAX_RECORD_SIZE') return badLine(this.line, TOO_LONG);
    return badLine(
      this.line,
      error.code === 'CSV_QUOTE_NOT_CLOSED'
        ? 'has a quotation mark that is never closed'
        : 'has a quotation mark in the middle of a value (RFC 4180)',
    );
  }
}

function breaksIn(text: string): number {
  return text.match(/\r\n|\n|\r/gu)?.length ?? 0;
}

const TOO_LONG = 'is longer than 1 MiB';

function badLine(line: number, message: string): DomainError {
  return invalid([{ path: `line ${line}`, message }]);
}
