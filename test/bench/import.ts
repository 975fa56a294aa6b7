// How fast a file goes into a list through the API, beside plain COPY of the same file into a bare table
// with the same columns as the file, in one run; and what the API's memory does meanwhile.
// `npm run bench:import`, or with another number of rows: `npm run bench:import -- 100000`.
import { createReadStream } from 'node:fs';
import { open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { from as copyFrom } from 'pg-copy-streams';
import { openStage } from './stage.ts';

const ROWS = Number(process.argv[2] ?? 1_000_000);
const TARGET = 1 / 3;

const stage = await openStage();
const file = path.join(tmpdir(), `rosterpost-bench-${process.pid}.csv`);
try {
  await writeFile(file, ROWS);
  const { size } = await stat(file);
  console.log(`${ROWS} rows, ${(size / 1024 / 1024).toFixed(0)} MiB`);
  const copied = await seconds(() => copyPlainly());
  report('plain COPY', copied);
  for (const name of ['import, all new', 'import, all unchanged']) {
    const bare = await runImport(name);
    console.log(
      `  ratio to COPY: ${(copied / bare.whole).toFixed(3)}, until the body was read ` +
        `${(copied / bare.staged).toFixed(2)} (target ${TARGET.toFixed(2)})`,
    );
  }
} finally {
  await rm(file, { force: true });
  await stage.close();
}
process.exit(0);

async function copyPlainly(): Promise<void> {
  const client = await stage.pool.connect();
  await client.query(`create unlogged table bare
    (source_object_key text, email text, name text, consent text, cohort text)`);
  await pipeline(
    createReadStream(file),
    client.query(copyFrom('copy bare from stdin with (format csv, header)')),
  );
  client.release();
}

async function runImport(name: string): Promise<{ whole: number; staged: number }> {
  const { size } = await stat(file);
  const marks = [0.1, 0.5, 1];
  const memory = [`start ${await stage.memory()}`];
  let read = 0;
  let staged = 0;
  let peak = 0;
  const done = new AbortController();
  const watched = (async () => {
    while (!done.signal.aborted) {
      peak = Math.max(peak, await stage.memory());
      await pause(250);
    }
  })();
  const begun = performance.now();
  async function* chunks() {
    for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
      yield chunk;
      read += chunk.length;
      if (read >= size * marks[0]!)
        memory.push(`${marks.shift()! * 100} % ${await stage.memory()}`);
    }
    staged = (performance.now() - begun) / 1000;
  }
  const response = await fetch(`${stage.url}/api/recipient-lists/bench/members/import`, {
    method: 'POST',
    headers: { authorization: `Bearer ${stage.key}`, 'content-type': 'text/csv' },
    body: Readable.from(chunks()) as never,
    duplex: 'half',
  });
  const answer = await response.text();
  const whole = (performance.now() - begun) / 1000;
  done.abort();
  await watched;
  if (response.status !== 200) throw new Error(answer);
  report(name, whole);
  console.log(`  body read after ${staged.toFixed(1)} s; ${answer}`);
  console.log(`  memory of the API in MiB: ${memory.join(', ')}, highest ${peak}`);
  return { whole, staged };
}

function report(name: string, took: number): void {
  console.log(`${name.padEnd(24)} ${took.toFixed(1)} s, ${(ROWS / took).toFixed(0)} rows/s`);
}

async function seconds(work: () => Promise<void>): Promise<number> {
  const begun = performance.now();
  await work();
  return (performance.now() - begun) / 1000;
}

async function writeFile(name: string, rows: number): Promise<void> {
  const out = await open(name, 'w');
  await out.write('source_object_key,email,name,consent,cohort\n');
  for (let at = 0; at < rows; at += 10_000) {
    const lines = Array.from({ length: Math.min(10_000, rows - at) }, (_, index) => {
      const n = at + index + 1;
      return `enrollment-${n},learner${n}@list.example,Learner ${n},subscribed,2026\n`;
    });
    await out.write(lines.join(''));
  }
  await out.close();
}
