// Whether an uploaded file may be attached: its extension, its declared type and its content must
// name the same allowed type, and the content must carry no macros and be nothing else besides.
// Content is told by file-type, and where that says too little, or reads more than it should, by our
// own reading: ZIP by its central directory, DOC and XLS in cfb.ts, text as text. A file is never
// unpacked, save the list of content types of an Office file, at most 1 MiB of it. Only I/O errors
// are thrown; a broken file is refused.
import { open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { inflateRaw } from 'node:zlib';
import { fileTypeFromFile } from 'file-type';
import {
  COMPOUND_FILE,
  DamagedFile,
  identifyCompoundFile,
  readAhead,
  type Content,
  type ReadAt,
} from './cfb.ts';
import { extensionOf, innerProgramExtension, safeFileName } from './file-names.ts';

export interface UploadedFile {
  /** As decoded from the multipart part. */
  name: string;
  /** The part's content type without parameters, in lower case; '' if it has none. */
  declaredType: string;
  /** Where the content is on disk. */
  path: string;
  size: number;
}

/**
 * By extension, what the mail says, and then what clients declare instead: the aliases of
 * freedesktop.org's shared-mime-info, and those of old browsers.
 */
const TYPES = {
  pdf: ['application/pdf', 'application/x-pdf', 'application/acrobat'],
  doc: ['application/msword', 'application/vnd.ms-word', 'application/x-msword'],
  docx: ['application/vnd.openxmlformats-officedocument.wordprocessingml.document'],
  xls: [
    'application/vnd.ms-excel',
    'application/msexcel',
    'application/x-msexcel',
    'application/x-excel',
  ],
  xlsx: ['application/vnd.openxmlformats-officedocument.spreadsheetml.sheet'],
  txt: ['text/plain'],
  zip: ['application/zip', 'application/x-zip', 'application/x-zip-compressed'],
  jpeg: ['image/jpeg', 'image/jpg', 'image/pjpeg'],
  png: ['image/png', 'image/x-png'],
  gif: ['image/gif'],
  bmp: ['image/bmp', 'image/x-bmp', 'image/x-ms-bmp', 'image/x-windows-bmp'],
  webp: ['image/webp'],
  tiff: ['image/tiff', 'image/tif', 'image/x-tiff', 'image/x-tif'],
} satisfies Record<string, [string, ...string[]]>;

type Kind = keyof typeof TYPES;
type Found = Content<Kind> & { contentType?: string };

const OTHER_EXTENSIONS: Record<string, Kind> = { jpg: 'jpeg', tif: 'tiff' };
const LABELS = Object.keys(TYPES).join(', ').toUpperCase();

// What a client says that does not know: curl of .xlsx, S3's tools. Nothing is declared then.
const UNDECLARED = new Set(['', 'application/octet-stream', 'binary/octet-stream']);

const UNKNOWN = { is: 'of no known type' };
const MARKUP = { is: 'HTML, SVG or other markup' };
const MACROS = { is: 'a macro-enabled Office file' };

/**
 * What the mail will carry, or why the file is refused: a sentence that begins with its name.
 * Never throws for bad content. Memory is bounded whatever the file; a TXT is read through once,
 * 64 KiB at a time, of the others a few parts.
 */
export async function checkAttachment(
  file: UploadedFile,
): Promise<{ name: string; contentType: string } | { refused: string }> {
  const name = safeFileName(file.name);
  if (name === undefined) return { refused: 'A file without a usable name cannot be attached' };
  const refuse = (reason: string) => ({ refused: `"${name}" ${reason}` });

  const extension = extensionOf(name);
  const kind = kindOf(extension);
  if (!kind) {
    const has = extension ? `the extension .${extension}` : 'no extension';
    return refuse(`has ${has}; what can be attached is ${LABELS}`);
  }
  const inner = innerProgramExtension(name);
  if (inner) return refuse(`has a second extension, .${inner}, of a program, script or macro file`);
  if (!UNDECLARED.has(file.declaredType) && !isTypeOf(kind, file.declaredType)) {
    return refuse(`is declared as ${file.declaredType.slice(0, 100)}, which is not ${label(kind)}`);
  }
  if (file.size === 0) return refuse('is empty');
  const content = await readContent(file, kind);
  if ('kind' in content && content.kind === kind) {
    return { name, contentType: content.contentType ?? TYPES[kind][0] };
  }
  const is = 'is' in content ? content.is : label(content.kind);
  return refuse(`cannot be attached as ${label(kind)}: its content is ${is}`);
}

function kindOf(extension: string): Kind | undefined {
  if (Object.hasOwn(TYPES, extension)) return extension as Kind;
  return Object.hasOwn(OTHER_EXTENSIONS, extension) ? OTHER_EXTENSIONS[extension] : undefined;
}

function isTypeOf(kind: Kind, declared: string): boolean {
  return (TYPES[kind] as string[]).includes(declared);
}

function label(kind: Kind): string {
  return kind.toUpperCase();
}

async function readContent({ path, size }: UploadedFile, kind: Kind): Promise<Found> {
  const handle = await open(path, 'r');
  const read: ReadAt = async (position, length) => {
    const bytes = Buffer.alloc(position < 0 ? 0 : Math.max(0, Math.min(length, size - position)));
    let filled = 0;
    while (filled < bytes.length) {
      const { bytesRead } = await handle.read(bytes, filled, undefined, position + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  };
  try {
    const text = kind === 'txt' ? await identifyText(read, size) : undefined;
    const content = text ?? (await identify(read, path, size));
    if (kind === 'txt' && content === UNKNOWN) return { is: 'not text in UTF-8' };
    // An image, a PDF or a document that unpacks as well: GIFAR and its like.
    const alsoZip = 'kind' in content && !ZIPS.has(content.kind) && (await findZipEnd(read, size));
    return alsoZip ? { is: `${label(content.kind)} and a ZIP archive in one` } : content;
  } catch (error) {
    if (error instanceof DamagedFile) return { is: 'damaged' };
    throw error;
  } finally {
    await handle.close();
  }
}

async function identify(read: ReadAt, path: string, size: number): Promise<Found> {
  const head = await read(0, 1024);
  if (ZIP_STARTS.some((start) => startsWith(head, start))) return identifyZip(read, size);
  if (startsWith(head, COMPOUND_FILE)) return identifyCompoundFile(read, size);
  if (startsWith(head, GZIP)) return { is: 'a gzip archive' }; // file-type would inflate it
  const text = textMark(head.toString('utf8'));
  if (text) return text;
  const sniffed = await sniff(path);
  if (sniffed === undefined) return UNKNOWN;
  const kind = SNIFFED.get(sniffed);
  if (!kind) return { is: WORDS.get(sniffed) ?? sniffed.toUpperCase() };
  return CLOSER_LOOK[kind]?.(head) === false ? UNKNOWN : { kind };
}

function startsWith(bytes: Buffer, start: Buffer): boolean {
  return bytes.subarray(0, start.length).equals(start);
}

/** file-type's word for the content. Of what comes here it reads some KiB, whatever the file says. */
async function sniff(path: string): Promise<string | undefined> {
  try {
    return (await fileTypeFromFile(path, { maxBufferSize: 65_536 }))?.ext;
  } catch (error) {
    // What a broken file makes it throw has no system call behind it.
    if (error instanceof Error && 'syscall' in error) throw error;
    return undefined;
  }
}

const GZIP = Buffer.from([0x1f, 0x8b]);

// Cameras' raw formats are TIFF with tags of their own; and ordinary TIFFs with Epson's print tag, or
// with 28 tags of which the first is NewSubfileType, are taken for ARW and NEF.
const SNIFFED = new Map<string, Kind>([
  ['pdf', 'pdf'],
  ['jpg', 'jpeg'],
  ['png', 'png'],
  ['apng', 'png'],
  ['gif', 'gif'],
  ['bmp', 'bmp'],
  ['webp', 'webp'],
  ['tif', 'tiff'],
  ['dng', 'tiff'],
  ['arw', 'tiff'],
  ['nef', 'tiff'],
]);

const WORDS = new Map([
  ['exe', 'a Windows program'],
  ['elf', 'a Linux program'],
  ['macho', 'a macOS program'],
  ['class', 'a Java program'],
  ['lnk', 'a Windows shortcut'],
]);

/** Where file-type goes by two to four bytes. */
const CLOSER_LOOK: Partial<Record<Kind, (head: Buffer) => boolean>> = {
  pdf: (head) => head.toString('latin1', 0, 5) === '%PDF-',
  gif: (head) => /^GIF8[79]a/u.test(head.toString('latin1', 0, 6)),
  jpeg: (head) => (head[3] ?? 0) >= 0xc0, // a marker: ITU T.81, table B.1
  // The length of the second header, which gives its version: BITMAPCOREHEADER to BITMAPV5HEADER.
  bmp: (head) =>
    head.length >= 18 && [12, 16, 40, 52, 56, 64, 108, 124].includes(head.readUInt32LE(14)),
};

// Text

// WHATWG MIME Sniffing, "binary data byte": below the space all but tab, line feed, form feed,
// carriage return and escape.
const BINARY = /[\u0000-\u0008\u000b\u000e-\u001a\u001c-\u001f]/u;

// The same standard's marks of HTML and XML, and what scripts and SVG add to them.
const MARKUP_START =
  /^<(?:!--|!doctype|\?(?:xml|php|=)|%|(?:html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|svg|math|xml|job|package|component)(?=[\s:/>]))/iu;

const DOCUMENT_STARTS: [string, Found][] = [
  ['%PDF-', { kind: 'pdf' }],
  ['%!PS', { is: 'PostScript' }],
  ['{\\rtf', { is: 'RTF' }],
];

/** What a program would take the text for, if it is not plain. */
function textMark(text: string): Found | undefined {
  const start = text.trimStart(); // the byte order mark too
  if (start.startsWith('#!')) return { is: 'a script' };
  return MARKUP_START.test(start) ? MARKUP : undefined;
}

/**
 * UTF-8, or UTF-16 with a byte order mark; undefined if it is neither, or has binary characters. The
 * type names the charset, as text/plain without one is ASCII (RFC 2046, section 4.1.2).
 */
async function identifyText(read: ReadAt, size: number): Promise<Found | undefined> {
  const encoding = encodingOf(await read(0, 2));
  const decoder = new TextDecoder(encoding, { fatal: true });
  const block = 65_536;
  for (let at = 0; at < size; at += block) {
    const bytes = await read(at, block);
    let text;
    try {
      text = decoder.decode(bytes, { stream: at + block < size });
    } catch {
      return undefined;
    }
    if (BINARY.test(text)) return undefined;
    if (at > 0) continue;
    const other = DOCUMENT_STARTS.find(([start]) => text.startsWith(start))?.[1] ?? textMark(text);
    if (other) return other;
  }
  const charset = encoding === 'utf-8' ? 'utf-8' : 'utf-16';
  return { kind: 'txt', contentType: `${TYPES.txt[0]}; charset=${charset}` };
}

function encodingOf(start: Buffer): string {
  const mark = start.toString('hex', 0, 2);
  return mark === 'fffe' ? 'utf-16le' : mark === 'feff' ? 'utf-16be' : 'utf-8';
}

// ZIP, and what is built on it. Sections are those of PKWARE's APPNOTE 6.3.10.

const ZIPS = new Set<Kind>(['zip', 'docx', 'xlsx']);
const LOCAL_HEADER = Buffer.from('PK\u0003\u0004');
const END_RECORD = Buffer.from('PK\u0005\u0006');
const ZIP_STARTS = [LOCAL_HEADER, END_RECORD]; // the second of an archive without files
const DIRECTORY_ENTRY = Buffer.from('PK\u0001\u0002');
const ZIP64_LOCATOR = Buffer.from('PK\u0006\u0007');
const ZIP64_END_RECORD = Buffer.from('PK\u0006\u0006');
const MAX_32 = 0xffffffff;
const MOST_ENTRIES = 20_000;
const MOST_CONTENT_TYPES = 1024 * 1024;

/** Entries that make an archive something else, by their name in lower case. */
const PACKAGES: [RegExp, string][] = [
  [/^meta-inf\/manifest\.mf$|^web-inf\//u, 'a Java program (JAR)'],
  [/^(?:androidmanifest\.xml|classes\d*\.dex)$|^base\/manifest\//u, 'an Android program (APK)'],
  [/^payload\/[^/]+\.app\//u, 'an iOS program (IPA)'],
  [/^appx(?:metadata\/appxbundle)?manifest\.xml$/u, 'a Windows program (APPX)'],
  [/^meta-inf\/mozilla\.rsa$/u, 'a browser extension (XPI)'],
  [/^meta-inf\/container\.xml$/u, 'an EPUB book'],
  [/^(?:mimetype|meta-inf\/manifest\.xml)$/u, 'an OpenDocument or EPUB file'],
  [/^index(?:\.zip|\.apxl|\/document\.iwa)$/u, 'an iWork document'],
];
const MACRO_PART = /(?:^|\/)vba(?:project\.bin|data\.xml)$|^xl\/macrosheets\//u;

interface ZipEnd {
  count: number;
  /** The central directory is from here … */
  start: number;
  /** … to here, where its end record is. */
  end: number;
}

interface ZipEntry {
  name: string;
  isEncrypted: boolean;
  method: number;
  compressedSize: number;
  offset: number;
}

async function identifyZip(read: ReadAt, size: number): Promise<Found> {
  const end = await findZipEnd(read, size);
  if (!end) throw new DamagedFile();
  if (end.count > MOST_ENTRIES) {
    return { is: `an archive of more than ${MOST_ENTRIES} files, too many to check` };
  }
  let contentTypes: ZipEntry | undefined;
  const extensions = new Set<string>();
  for await (const entry of readZipDirectory(read, end)) {
    const name = entry.name
      .toLowerCase()
      .replaceAll('\\', '/')
      .replace(/^(?:\.?\/)+/u, '');
    if (MACRO_PART.test(name)) return MACROS;
    const found = PACKAGES.find(([pattern]) => pattern.test(name));
    if (found) return { is: found[1] };
    extensions.add(extensionOf(name));
    if (name !== '[content_types].xml') continue;
    if (contentTypes) throw new DamagedFile(); // readers would differ on which one counts
    contentTypes = entry;
  }
  if (!contentTypes) return { kind: 'zip' };
  return identifyOfficeXml(typesOfParts(await readContentTypes(read, contentTypes), extensions));
}

/** 4.3.16: the end record, if it and its comment end the file. */
async function findZipEnd(read: ReadAt, size: number): Promise<ZipEnd | undefined> {
  const tail = await read(Math.max(0, size - 65_557), 65_557); // 22, and a comment of 65,535
  const room = tail.subarray(0, Math.max(0, tail.length - 18)); // a signature later has no room
  for (let at = room.lastIndexOf(END_RECORD); at >= 0; at = lastBefore(room, at)) {
    if (at + 22 + tail.readUInt16LE(at + 20) !== tail.length) continue;
    const end = size - tail.length + at;
    const [count, start] = [tail.readUInt16LE(at + 10), tail.readUInt32LE(at + 16)];
    const zip64 = await readZip64End(read, end - 20);
    if (!zip64) return { count, start, end };
    // All ones stand for "see the longer record"; anything else must say the same as it.
    const agrees = [zip64.count, 0xffff].includes(count) && [zip64.start, MAX_32].includes(start);
    if (!agrees) throw new DamagedFile();
    return zip64;
  }
  return undefined;
}

function lastBefore(room: Buffer, at: number): number {
  return room.subarray(0, at + 3).lastIndexOf(END_RECORD);
}

/** 4.3.14 and 4.3.15: the longer record that some write for small archives too. */
async function readZip64End(read: ReadAt, at: number): Promise<ZipEnd | undefined> {
  const locator = await read(at, 20);
  if (locator.length < 20 || !startsWith(locator, ZIP64_LOCATOR)) return undefined;
  const end = Number(locator.readBigUInt64LE(8));
  const record = await read(end, 56);
  if (record.length < 56 || !startsWith(record, ZIP64_END_RECORD)) return undefined;
  return {
    count: Number(record.readBigUInt64LE(32)),
    start: Number(record.readBigUInt64LE(48)),
    end,
  };
}

/** 4.3.12. The entries must fill the room before the end record exactly. */
async function* readZipDirectory(
  read: ReadAt,
  { count, start, end }: ZipEnd,
): AsyncGenerator<ZipEntry> {
  const readNext = readAhead(read);
  let at = start;
  for (let n = 0; n < count; n += 1) {
    const header = await readNext(at, 46);
    if (header.length < 46 || !startsWith(header, DIRECTORY_ENTRY)) throw new DamagedFile();
    const nameLength = header.readUInt16LE(28);
    yield {
      name: (await readNext(at + 46, nameLength)).toString('latin1'),
      isEncrypted: header.readUInt16LE(8) % 2 === 1,
      method: header.readUInt16LE(10),
      compressedSize: header.readUInt32LE(20),
      offset: header.readUInt32LE(42),
    };
    at += 46 + nameLength + header.readUInt16LE(30) + header.readUInt16LE(32);
    if (at > end) throw new DamagedFile();
  }
  if (at !== end) throw new DamagedFile();
}

// Office Open XML: ECMA-376 part 2, section 7.2.3.

const TYPE_OF_PART =
  /<(?:[\w.-]+:)?(Default|Override)((?:\s+[\w.:-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*\/?>/gu;
const ATTRIBUTE = /([\w.:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/gu;

/** The list of content types, as XML without comments. */
async function readContentTypes(read: ReadAt, entry: ZipEntry): Promise<string> {
  if (entry.isEncrypted || entry.compressedSize > MOST_CONTENT_TYPES) throw new DamagedFile();
  const header = await read(entry.offset, 30); // APPNOTE 4.3.7
  if (header.length < 30 || !startsWith(header, LOCAL_HEADER)) throw new DamagedFile();
  const nameLength = header.readUInt16LE(26);
  const name = (await read(entry.offset + 30, nameLength)).toString('latin1');
  if (name !== entry.name || header.readUInt16LE(8) !== entry.method) throw new DamagedFile();
  const start = entry.offset + 30 + nameLength + header.readUInt16LE(28);
  const bytes = await read(start, entry.compressedSize);
  const list = entry.method === 0 ? bytes : await inflate(bytes);
  return withoutComments(new TextDecoder(encodingOf(list)).decode(list));
}

async function inflate(bytes: Buffer): Promise<Buffer> {
  try {
    return await promisify(inflateRaw)(bytes, { maxOutputLength: MOST_CONTENT_TYPES });
  } catch {
    throw new DamagedFile();
  }
}

function withoutComments(xml: string): string {
  const [first = '', ...rest] = xml.split('<!--');
  return first + rest.map((part) => part.slice(part.indexOf('-->') + 3)).join('');
}

/** The content types that parts of these extensions have, in lower case. */
function typesOfParts(xml: string, extensions: ReadonlySet<string>): string[] {
  // A document type or a character reference would let the list mean more than it shows.
  if (/<!|&#|\0/u.test(xml)) throw new DamagedFile();
  const types: string[] = [];
  const rest = xml.replace(TYPE_OF_PART, (_, element: string, text: string) => {
    const attributes = new Map(
      Array.from(text.matchAll(ATTRIBUTE), ([, name, a, b]) => [
        name,
        (a ?? b ?? '').toLowerCase(),
      ]),
    );
    const extension = attributes.get('Extension') ?? '';
    // Some writers list defaults for all they know, those of macros too, whatever the file has.
    if (element === 'Override' || extensions.has(extension)) {
      types.push(attributes.get('ContentType')?.trim() ?? '');
    }
    return '';
  });
  if (rest.includes('ContentType')) throw new DamagedFile();
  return types;
}

/** By the content type of its main part, which tells documents, templates and macros apart. */
function identifyOfficeXml(types: readonly string[]): Found {
  if (types.some((type) => /macroenabled|vbaproject|vbadata|macrosheet/u.test(type))) return MACROS;
  const [main, other] = new Set(types.filter((type) => type.endsWith('.main+xml')));
  if (other) return { is: 'several Office files in one' };
  if (main === `${TYPES.docx[0]}.main+xml`) return { kind: 'docx' };
  if (main === `${TYPES.xlsx[0]}.main+xml`) return { kind: 'xlsx' };
  if (main?.includes('.template.')) return { is: 'an Office template' };
  if (main?.includes('.presentationml.')) return { is: 'a PowerPoint presentation' };
  return { is: 'a package that is neither DOCX nor XLSX' };
}
