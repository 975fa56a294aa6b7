// What uploads may take of the machine: places to be read at once, and a folder on disk each. A folder
// is removed when its request is done; what a killed process left is swept by those that run.
// A full disk is `unavailable`: the same request may succeed later.
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DomainError } from '../errors.ts';

const FOLDER_PREFIX = 'rosterpost-upload-';
/** No upload lasts that long, so an older folder has no owner. */
const ABANDONED_AFTER_MS = 10 * 60 * 1000;
const SWEEP_EVERY_MS = 5 * 60 * 1000;

export interface GateOptions {
  places?: number;
  /** Of one client: however slow its uploads are, others get in. */
  perClient?: number;
  longestLine?: number;
}

interface Waiting {
  client: unknown;
  admit: () => void;
}

/**
 * At most `places` uploads are read at once. The rest wait in line in the order they came, their bodies
 * unread: TCP holds their clients back, and of each at most 128 KiB is in our memory (measured: what
 * Node reads before it stops). Hence the line has an end, too.
 */
export class UploadGate {
  readonly #line = new Set<Waiting>();
  readonly #inside = new Map<unknown, number>();
  readonly #longestLine: number;
  readonly #perClient: number;
  #free: number;

  constructor({ places = 8, perClient = places, longestLine = 500 }: GateOptions = {}) {
    this.#free = places;
    this.#perClient = perClient;
    this.#longestLine = longestLine;
  }

  get waiting(): number {
    return this.#line.size;
  }

  /**
   * Runs `work` when a place is free. `signal` is the request's: a client that closes the connection
   * leaves the line. Node sees that at once where the body fits into what it read ahead; of a longer
   * body it learns it when the turn comes and reading fails.
   * @throws unavailable where the line is too long, and what `work` throws
   */
  async run<Result>(
    signal: AbortSignal,
    work: () => Promise<Result>,
    client?: unknown,
  ): Promise<Result> {
    await this.#enter(signal, client);
    try {
      return await work();
    } finally {
      this.#leave(client);
    }
  }

  async #enter(signal: AbortSignal, client: unknown): Promise<void> {
    if (signal.aborted) throw clientLeft();
    if (this.#mayEnter(client)) {
      this.#take(client);
      return;
    }
    if (this.#line.size >= this.#longestLine) {
      throw new DomainError('unavailable', 'Too many uploads are waiting. Try again.');
    }
    await new Promise<void>((resolve, reject) => {
      const waiting = {
        client,
        admit: () => {
          signal.removeEventListener('abort', leave);
          resolve();
        },
      };
      const leave = () => {
        this.#line.delete(waiting);
        reject(clientLeft());
      };
      this.#line.add(waiting);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  #mayEnter(client: unknown): boolean {
    return this.#free > 0 && (this.#inside.get(client) ?? 0) < this.#perClient;
  }

  #take(client: unknown): void {
    this.#free -= 1;
    this.#inside.set(client, (this.#inside.get(client) ?? 0) + 1);
  }

  /** The place goes to the first in line who may have it, or is free. */
  #leave(client: unknown): void {
    this.#free += 1;
    const left = this.#inside.get(client)! - 1;
    if (left > 0) this.#inside.set(client, left);
    else this.#inside.delete(client);
    for (const waiting of this.#line) {
      if (!this.#mayEnter(waiting.client)) continue;
      this.#line.delete(waiting);
      this.#take(waiting.client);
      waiting.admit();
      return;
    }
  }
}

/** Nobody reads this answer. */
function clientLeft(): DomainError {
  return new DomainError('validation_failed', 'The client closed the connection.');
}

/**
 * Runs `work` with a new folder that only we can read, and removes it afterwards, whatever happens.
 * @throws unavailable where the disk is full
 */
export async function withSpoolFolder<Result>(
  work: (folder: string) => Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), FOLDER_PREFIX)).catch(rethrowUnavailable);
  try {
    return await work(folder);
  } finally {
    // Where this fails the answer stands all the same, and the sweep removes the folder.
    await rm(folder, { recursive: true, force: true }).catch(() => {});
  }
}

/**
 * Writes the chunks to a new file and says how many bytes they are and their SHA-256. The next chunk is
 * asked for when the one before is written, so a slow disk holds the client back. `count` is told the
 * size of each chunk and may throw.
 * @throws unavailable where the disk is full, and what `count` or the chunks throw
 */
export async function spoolFile(
  chunks: AsyncIterable<Uint8Array>,
  path: string,
  count: (bytes: number) => void,
): Promise<{ size: number; sha256: Buffer }> {
  const hash = createHash('sha256');
  let size = 0;
  async function* measured() {
    for await (const chunk of chunks) {
      count(chunk.length);
      hash.update(chunk);
      size += chunk.length;
      yield chunk;
    }
  }
  await writeFile(path, measured(), { flag: 'wx', mode: 0o600 }).catch(rethrowUnavailable);
  return { size, sha256: hash.digest() };
}

/** No room on the disk or in a quota, or no file handle left. */
const OUT_OF_ROOM = new Set(['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE']);

function rethrowUnavailable(error: NodeJS.ErrnoException): never {
  if (!OUT_OF_ROOM.has(error.code ?? '')) throw error;
  throw new DomainError('unavailable', 'The server has no room for uploads right now. Try again.');
}

/** Removes the folders that killed processes left, now and then again. */
export function keepSpoolSwept(): void {
  void sweepSpool();
  setInterval(() => void sweepSpool(), SWEEP_EVERY_MS).unref();
}

/** Never rejects: what cannot be looked at or removed is another user's, or goes next time. */
export async function sweepSpool(): Promise<void> {
  const entries = await readdir(tmpdir(), { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isDirectory() || !entry.name.startsWith(FOLDER_PREFIX)) continue;
    const folder = join(tmpdir(), entry.name);
    try {
      const { mtimeMs } = await stat(folder);
      if (mtimeMs > Date.now() - ABANDONED_AFTER_MS) continue;
      await rm(folder, { recursive: true, force: true });
    } catch {
      continue;
    }
  }
}
