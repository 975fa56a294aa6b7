// Compound files (MS-CFB), the container of DOC and XLS and of much else: what a file really is, by
// the names in its directory, and whether it carries macros. Reads the header, the FAT, the directory
// and, of a workbook, the records before its sheets: never more than the file holds, each part once.
// Chains that loop, leave the file or outgrow it make it damaged; sections are those of MS-CFB.

/** Up to `length` bytes from `position`; fewer only at the end of what is read. */
export type ReadAt = (position: number, length: number) => Promise<Buffer>;

/** What a content is: a known kind, or in words that end the sentence "its content is …". */
export type Content<Kind extends string> = { kind: Kind } | { is: string };

/** The structure of a file is broken. */
export class DamagedFile extends Error {}

export const COMPOUND_FILE = Buffer.from('d0cf11e0a1b11ae1', 'hex');

const MAX_REGULAR_SECTOR = 0xfffffffa; // 2.1: above are the marks for free, end of chain, FAT
const HEADER_FAT_SECTORS = 109; // 2.2: places of FAT sectors kept in the header
const MINI_SECTOR = 64; // 2.2
const MINI_CUTOFF = 4096; // 2.2: smaller streams are in the mini stream
const MOST_MINI_FAT = 1024 * 1024; // enough for 16 MiB of small streams
const ENTRY = 128; // 2.6.1
const MOST_ENTRIES = 8192; // an object embedded in a document takes about seven
const STORAGE = 1;
const STREAM = 2;
const ROOT = 5;

// The root's class of Windows Installer's packages, patches and transforms.
const INSTALLER = /^8[246]100c0000000000c000000000000046$/u;

/** Streams that one program alone puts below the root, in lower case. */
const MARKS = new Map<string, 'doc' | 'xls' | { is: string }>([
  ['worddocument', 'doc'],
  ['workbook', 'xls'],
  ['book', 'xls'], // Excel 5 and 95
  ['powerpoint document', { is: 'a PowerPoint presentation' }],
  ['visiodocument', { is: 'a Visio drawing' }],
  ['__properties_version1.0', { is: 'an Outlook message' }],
  ['encryptedpackage', { is: 'an Office file under a password, which cannot be checked' }],
]);

const MACROS = { is: 'an Office file with macros' };

interface Entry {
  name: string;
  type: number;
  classId: string;
  start: number;
  size: number;
  left: number;
  right: number;
  child: number;
}

interface CompoundFile {
  header: Buffer;
  sectorSize: number;
  /** Sectors after the header, the last one perhaps short. */
  sectors: number;
  read: ReadAt;
  fat: Buffer;
}

/** @throws DamagedFile */
export async function identifyCompoundFile(
  read: ReadAt,
  size: number,
): Promise<Content<'doc' | 'xls'>> {
  const file = await openCompoundFile(read, size);
  const entries = await readDirectory(file);
  const root = entries[0];
  if (root?.type !== ROOT) throw new DamagedFile();
  if (INSTALLER.test(root.classId)) return { is: 'a Windows Installer package' };
  const top = childrenOf(root, entries);
  const streams = top.filter(({ type }) => type === STREAM);
  const kinds = new Set(streams.flatMap(({ name }) => MARKS.get(name) ?? []));
  const [kind, other] = kinds;
  if (!kind) return { is: 'a compound file that is neither DOC nor XLS' };
  if (other) return { is: 'several Office files in one' };
  if (typeof kind === 'object') return kind;
  if (entries.some(holdsMacros)) return MACROS;
  if (kind === 'doc') return { kind };
  for (const entry of streams.filter(({ name }) => MARKS.get(name) === 'xls')) {
    const found = await readWorkbook(await openStream(file, root, entry));
    if (found) return found;
  }
  return { kind };
}

/** The storages of a VBA project (MS-OVBA 2.2.1) in DOC and XLS, of embedded objects too. */
function holdsMacros({ name, type }: Entry): boolean {
  if (type === STREAM) return name === '_vba_project';
  return type === STORAGE && ['macros', '_vba_project_cur', 'vba'].includes(name);
}

/**
 * Excel 4 macro sheets have no storage of their own, only a kind in the list of sheets. Under a
 * password that list is unreadable, and Excel opens some passwords without asking (MS-XLS 2.4.117).
 */
async function readWorkbook(stream: ReadAt): Promise<{ is: string } | undefined> {
  const [BOUND_SHEET, FILE_PASS, END] = [0x85, 0x2f, 0x0a];
  const read = readAhead(stream);
  for (let at = 0; ;) {
    const record = await read(at, 10);
    if (record.length < 4) return undefined;
    const type = record.readUInt16LE(0);
    if (type === FILE_PASS) return { is: 'a workbook under a password, which cannot be checked' };
    // MS-XLS 2.4.28: after the header 4 bytes of position and one of visibility; 1 is a macro sheet.
    if (type === BOUND_SHEET && record[9] === 1) return MACROS;
    if (type === END) return undefined;
    at += 4 + record.readUInt16LE(2);
  }
}

async function openCompoundFile(read: ReadAt, size: number): Promise<CompoundFile> {
  const header = await read(0, 512);
  if (header.length < 512) throw new DamagedFile();
  const shift = header.readUInt16LE(30);
  if (shift !== 9 && shift !== 12) throw new DamagedFile(); // 2.2: versions 3 and 4
  const sectorSize = 1 << shift;
  const sectors = Math.ceil(size / sectorSize) - 1;
  const file = { header, sectorSize, sectors, read, fat: Buffer.alloc(0) };
  const places = await locateFat(file);
  return { ...file, fat: await overChain(file, places)(0, places.length * sectorSize) };
}

/** 2.5: places of the FAT's sectors, as many as the file needs: first the header's, then the DIFAT's. */
async function locateFat(file: CompoundFile): Promise<number[]> {
  const needed = Math.ceil((file.sectors * 4) / file.sectorSize);
  const places: number[] = [];
  const take = (sector: Buffer, from: number, to: number) => {
    for (let at = from; at < to && places.length < needed; at += 4) {
      places.push(sector.readUInt32LE(at));
    }
  };
  take(file.header, 76, 76 + HEADER_FAT_SECTORS * 4);
  // A DIFAT that loops fills the list all the same.
  let next = file.header.readUInt32LE(68);
  while (places.length < needed && next <= MAX_REGULAR_SECTOR) {
    const sector = await overChain(file, [next])(0, file.sectorSize);
    take(sector, 0, file.sectorSize - 4);
    next = sector.readUInt32LE(file.sectorSize - 4);
  }
  // What follows the last used sector needs no FAT.
  while (places.length > 0 && places.at(-1)! > MAX_REGULAR_SECTOR) places.pop();
  return places;
}

/** 2.3: the sectors of a chain. */
function followChain(table: Buffer, start: number, most: number): number[] {
  const chain: number[] = [];
  for (let sector = start; sector <= MAX_REGULAR_SECTOR; sector = table.readUInt32LE(sector * 4)) {
    if (chain.length >= most || sector * 4 + 4 > table.length) throw new DamagedFile();
    chain.push(sector);
  }
  return chain;
}

/** The bytes of these sectors, one after another, neighbours read at once. */
function overChain(file: CompoundFile, chain: readonly number[]): ReadAt {
  if (chain.some((sector) => sector >= file.sectors)) throw new DamagedFile();
  const padded: ReadAt = async (position, length) => {
    const bytes = await file.read(position + file.sectorSize, length); // after the header
    // Some writers leave the last sector short.
    return bytes.length < length ? Buffer.concat([bytes], length) : bytes;
  };
  return inUnits(padded, chain, file.sectorSize);
}

function inUnits(read: ReadAt, chain: readonly number[], unit: number): ReadAt {
  return async (position, length) => {
    const end = Math.min(position + length, chain.length * unit);
    const parts: Buffer[] = [];
    for (let at = position; at < end;) {
      const first = Math.floor(at / unit);
      let last = first;
      while ((last + 1) * unit < end && chain[last + 1] === chain[last]! + 1) last += 1;
      const until = Math.min(end, (last + 1) * unit);
      const part = await read(chain[first]! * unit + (at % unit), until - at);
      if (part.length < until - at) throw new DamagedFile();
      parts.push(part);
      at = until;
    }
    return Buffer.concat(parts);
  };
}

async function readDirectory(file: CompoundFile): Promise<Entry[]> {
  const most = Math.min(file.sectors, (MOST_ENTRIES * ENTRY) / file.sectorSize);
  const chain = followChain(file.fat, file.header.readUInt32LE(48), most);
  const bytes = await overChain(file, chain)(0, chain.length * file.sectorSize);
  const entries: Entry[] = [];
  for (let at = 0; at < bytes.length; at += ENTRY) {
    entries.push(readEntry(bytes.subarray(at, at + ENTRY)));
  }
  return entries;
}

/** 2.6.1. Names compare without regard to case (2.6.4). */
function readEntry(bytes: Buffer): Entry {
  const nameLength = Math.min(Math.max(bytes.readUInt16LE(64) - 2, 0), 62);
  return {
    name: bytes.toString('utf16le', 0, nameLength).toLowerCase(),
    type: bytes.readUInt8(66),
    left: bytes.readUInt32LE(68),
    right: bytes.readUInt32LE(72),
    child: bytes.readUInt32LE(76),
    classId: bytes.toString('hex', 80, 96),
    start: bytes.readUInt32LE(116),
    size: bytes.readUInt32LE(120),
  };
}

/** 2.6.4: the tree of a storage's children, each met once. */
function childrenOf(storage: Entry, entries: readonly Entry[]): Entry[] {
  const children = new Set<Entry>();
  const waiting = [storage.child];
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    if (id > MAX_REGULAR_SECTOR) continue; // none
    const child = entries[id];
    if (!child || children.has(child)) throw new DamagedFile();
    children.add(child);
    waiting.push(child.left, child.right);
  }
  return [...children];
}

/** 2.4: a small stream is kept in the mini stream, which is the root's. */
async function openStream(file: CompoundFile, root: Entry, entry: Entry): Promise<ReadAt> {
  const regular = (start: number) => followChain(file.fat, start, file.sectors);
  if (entry.size >= MINI_CUTOFF) {
    const chain = regular(entry.start).slice(0, Math.ceil(entry.size / file.sectorSize));
    return overChain(file, chain);
  }
  const tableSize = Math.min(Math.ceil(root.size / MINI_SECTOR) * 4, MOST_MINI_FAT);
  const table = await overChain(file, regular(file.header.readUInt32LE(60)))(0, tableSize);
  const chain = followChain(table, entry.start, MINI_CUTOFF / MINI_SECTOR);
  return inUnits(overChain(file, regular(root.start)), chain, MINI_SECTOR);
}

/** Reads 64 KiB at a time, for many small reads that go forward. */
export function readAhead(read: ReadAt): ReadAt {
  let from = 0;
  let block: Buffer = Buffer.alloc(0);
  return async (position, length) => {
    if (position < from || position + length > from + block.length) {
      block = await read(position, Math.max(length, 65_536));
      from = position;
    }
    return block.subarray(position - from, position - from + length);
  };
}
