// Where the package lies: the folder of package.json, whether this file runs from src/ or from
// dist/src/.
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

function findRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(path.join(folder, 'migrations'))) {
    const parent = path.dirname(folder);
    if (parent === folder) throw new Error('migrations/ was not found beside the program');
    folder = parent;
  }
  return folder;
}

const ROOT = findRoot();

/** Absolute path of a file of the package. */
export function rootFile(...parts: string[]): string {
  return path.join(ROOT, ...parts);
}

export const VERSION = (
  JSON.parse(readFileSync(rootFile('package.json'), 'utf8')) as { version: string }
).version;
