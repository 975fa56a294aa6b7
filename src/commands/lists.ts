// Commands list import and list export: files of members, straight to and from the database.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { Option, type Command } from 'commander';
import { findClient } from '../clients/clients.ts';
import type { Connection, Database } from '../database/connect.ts';
import { invalid } from '../errors.ts';
import { isKey } from '../fields.ts';
import { exportMembers } from '../recipients/export.ts';
import { importMembers, type ImportCounts } from '../recipients/import.ts';
import { IMPORT_FORMATS, type ImportFormat } from '../recipients/import-rows.ts';
import { progressBar } from './progress.ts';
import { print, withDatabase } from './with-database.ts';

export interface ListOptions {
  client: string;
  list: string;
}

/** Rejected lines that are printed. */
const MOST_SHOWN = 20;

/** Draws how much of the file is read, and returns what to print. @throws as importMembers, not_found */
export async function importFile(
  connection: Pick<Connection, 'db' | 'pool'>,
  file: string,
  { client, list, format = formatOf(file) }: ListOptions & { format?: ImportFormat },
  out: NodeJS.WriteStream = process.stderr,
): Promise<string[]> {
  if (!format) {
    throw invalid([
      {
        path: '--format',
        message: 'must be given where FILE does not end in .csv, .ndjson or .jsonl',
      },
    ]);
  }
  const { id: clientId } = await findClient(connection.db, client);
  const { size } = await stat(file);
  const draw = (text: string) => out.isTTY && out.write(`\r\u001b[2K${text}`);
  let drawn = -1;
  let read = 0;
  async function* chunks() {
    for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
      yield chunk;
      read += chunk.length;
      const percent = Math.floor((read / size) * 100);
      if (percent !== drawn) draw(`${progressBar(read / size)}  reading`);
      drawn = percent;
    }
  }
  try {
    const counts = await importMembers(connection, {
      clientId,
      listKey: listKey(list),
      format,
      chunks: chunks(),
      onStaged: (rows) => draw(`${progressBar(1)}  writing ${rows} members`),
    });
    return countLines(counts);
  } finally {
    draw('');
  }
}

function formatOf(file: string): ImportFormat | undefined {
  const extension = path.extname(file).toLowerCase();
  if (extension === '.csv') return 'csv';
  return extension === '.ndjson' || extension === '.jsonl' ? 'ndjson' : undefined;
}

function listKey(list: string): string {
  if (isKey(list)) return list;
  throw invalid([{ path: '--list', message: 'must be 1 to 255 characters without "/"' }]);
}

function countLines({ created, updated, unchanged, rejected_count, rejected }: ImportCounts) {
  const shown = rejected
    .slice(0, MOST_SHOWN)
    .map(({ line, message }) => `line ${line}: ${message}`);
  const more = rejected_count - shown.length;
  return [
    `created ${created}, updated ${updated}, unchanged ${unchanged}, rejected ${rejected_count}`,
    ...shown,
    ...(more > 0 ? [`… and ${more} more`] : []),
  ];
}

/** CSV to `out`, no faster than it is taken. @throws not_found */
export async function exportFile(
  db: Database,
  { client, list }: ListOptions,
  out: NodeJS.WritableStream = process.stdout,
): Promise<void> {
  const { id } = await findClient(db, client);
  let isOpen = true;
  out.on('error', () => (isOpen = false)); // whoever reads, as head does, has enough
  for await (const block of await exportMembers(db, id, listKey(list))) {
    await new Promise<void>((resolve) => void out.write(block, () => resolve()));
    if (!isOpen) return;
  }
}

export function addListCommands(program: Command): void {
  const list = program.command('list').description('recipient lists');
  list
    .command('import <file>')
    .description('upserts the members of a CSV or NDJSON file into a list, all of them or none')
    .requiredOption('--client <key>', 'the client the list belongs to')
    .requiredOption('--list <key>', 'the list; made where it is missing')
    .addOption(
      new Option('--format <format>', 'default: by the extension .csv, .ndjson or .jsonl').choices(
        IMPORT_FORMATS,
      ),
    )
    .action((file: string, options: ListOptions & { format?: ImportFormat }) =>
      withDatabase(async (connection) => {
        for (const line of await importFile(connection, file, options)) print(line);
      }),
    );
  list
    .command('export')
    .description('the active members of a list as CSV, to stdout')
    .requiredOption('--client <key>', 'the client the list belongs to')
    .requiredOption('--list <key>', 'the list')
    .action((options: ListOptions) => withDatabase(({ db }) => exportFile(db, options)));
}
