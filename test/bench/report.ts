// What a run of the benchmark found: a table for people, a JSON file with every single run, a plot.
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { rootFile } from '../../src/root.ts';
import { plot, type Series } from './plot.ts';

export interface Row {
  measure: string;
  figure: string;
  /** Empty where a figure is only told. */
  target?: string;
  reached?: boolean;
  /** What the figure is the median or the ratio of, each single run. */
  runs?: Record<string, readonly number[]>;
}

export interface Found {
  rows: Row[];
  series?: Series[];
  /** Told below the table. */
  notes?: string[];
}

const FOLDER = rootFile('bench-results');

export function table(rows: readonly Row[]): string {
  const lines = [
    ['measure', 'figure', 'target', ''],
    ...rows.map(({ measure, figure, target = '', reached }) => [
      measure,
      figure,
      target,
      reached === undefined ? '' : reached ? 'reached' : 'NOT REACHED',
    ]),
  ];
  const widths = [0, 1, 2].map((column) =>
    Math.max(...lines.map((cells) => cells[column]!.length)),
  );
  return lines
    .map((cells) => cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '))
    .map((line) => line.trimEnd())
    .join('\n');
}

const MOST_SHOWN = 12;

/** What the figures were made of; all of it stands in the file. */
export function singleRuns(rows: readonly Row[]): string {
  return rows
    .flatMap(({ measure, runs = {} }) =>
      Object.entries(runs).map(
        ([what, values]) => `  ${measure.trim()}: ${what}: ${first(values)}`,
      ),
    )
    .join('\n');
}

function first(values: readonly number[]): string {
  const shown = values.slice(0, MOST_SHOWN).map((value) => Number(value.toPrecision(4)));
  const more = values.length > shown.length ? ` … (${values.length} in all)` : '';
  return shown.join(', ') + more;
}

/** Returns the files. */
export async function writeResults(
  about: Record<string, unknown>,
  found: readonly Found[],
): Promise<string[]> {
  await mkdir(FOLDER, { recursive: true });
  const name = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
  const series = found.flatMap((one) => one.series ?? []);
  const json = path.join(FOLDER, `${name}.json`);
  const rows = found.flatMap((one) => one.rows);
  const notes = found.flatMap((one) => one.notes ?? []);
  await writeFile(json, `${JSON.stringify({ ...about, rows, notes, series }, null, 2)}\n`);
  if (series.length === 0) return [json];
  const svg = path.join(FOLDER, `${name}.svg`);
  await writeFile(svg, plot(series));
  return [json, svg];
}
