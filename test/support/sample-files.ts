// Files of every type that may be attached, and the means to make the ones that may not: real ones,
// which the programs of their trade open, as small as they can be. ZIP and compound files are written
// here by hand so that tests can also write them wrong.
import { crc32, deflateRawSync, deflateSync } from 'node:zlib';

// ZIP: PKWARE's APPNOTE

export interface ZipFile {
  name: string;
  content?: string | Buffer;
  deflated?: boolean;
  /** What the archive says instead of the truth: all but the method in its directory alone. */
  claims?: { compressedSize?: number; offset?: number; flags?: number; method?: number };
}

export interface ZipOptions {
  comment?: Buffer;
  /** What the end record says instead of the truth. */
  claims?: { count?: number; size?: number; offset?: number };
  zip64?: boolean;
}

export function zip(
  files: readonly ZipFile[],
  { comment, claims, zip64 }: ZipOptions = {},
): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, content = '', deflated = false, claims: says } of files) {
    const plain = Buffer.from(content);
    const data = deflated ? deflateRawSync(plain) : plain;
    const encoded = Buffer.from(name);
    const common = (flags: number, compressedSize: number) =>
      bytes(
        [2, 20],
        [2, flags],
        [2, says?.method ?? (deflated ? 8 : 0)],
        [4, 0x5c210000],
        [4, crc32(plain)],
        [4, compressedSize],
        [4, plain.length],
        [2, encoded.length],
        [2, 0],
      );
    const local = Buffer.concat([
      bytes([4, 0x04034b50]),
      common(0x800, data.length),
      encoded,
      data,
    ]);
    directory.push(
      bytes([4, 0x02014b50], [2, 20]),
      common(says?.flags ?? 0x800, says?.compressedSize ?? data.length),
      bytes([2, 0], [2, 0], [2, 0], [4, 0], [4, says?.offset ?? offset]),
      encoded,
    );
    locals.push(local);
    offset += local.length;
  }
  const entries = Buffer.concat(directory);
  const count = claims?.count ?? files.length;
  const size = claims?.size ?? entries.length;
  const start = claims?.offset ?? offset;
  return Buffer.concat([
    ...locals,
    entries,
    ...(zip64 ? [zip64End(count, size, start, offset + entries.length)] : []),
    bytes([4, 0x06054b50], [4, 0]),
    zip64
      ? bytes([2, 0xffff], [2, 0xffff], [4, 0xffffffff], [4, 0xffffffff])
      : bytes([2, count % 65_536], [2, count % 65_536], [4, size], [4, start]),
    bytes([2, comment?.length ?? 0]),
    comment ?? Buffer.alloc(0),
  ]);
}

function zip64End(count: number, size: number, start: number, at: number): Buffer {
  return bytes(
    ...([
      [4, 0x06064b50],
      [8, 44],
      [2, 45],
      [2, 45],
      [4, 0],
      [4, 0],
    ] as const),
    ...([
      [8, count],
      [8, count],
      [8, size],
      [8, start],
    ] as const),
    ...([
      [4, 0x07064b50],
      [4, 0],
      [8, at],
      [4, 1],
    ] as const),
  );
}

/** Little-endian numbers of so many bytes each. */
function bytes(...numbers: readonly (readonly [length: number, value: number])[]): Buffer {
  const parts = numbers.map(([length, value]) => {
    const part = Buffer.alloc(length);
    if (length === 8) part.writeBigUInt64LE(BigInt(value));
    else part.writeUIntLE(value, 0, length);
    return part;
  });
  return Buffer.concat(parts);
}

// Office Open XML: ECMA-376

export const WORD = 'application/vnd.openxmlformats-officedocument.wordprocessingml';
export const EXCEL = 'application/vnd.openxmlformats-officedocument.spreadsheetml';

const XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n';
const SCHEMAS = 'http://schemas.openxmlformats.org';
const RELATIONSHIPS = 'application/vnd.openxmlformats-package.relationships+xml';

/** `[Content_Types].xml` with this type for the main part, and whatever more. */
export function contentTypes(mainPart: string, mainType: string, more = ''): ZipFile {
  return {
    name: '[Content_Types].xml',
    deflated: true,
    content:
      `${XML}<Types xmlns="${SCHEMAS}/package/2006/content-types">` +
      `<Default Extension="rels" ContentType="${RELATIONSHIPS}"/>` +
      `<Default Extension="xml" ContentType="application/xml"/>` +
      `<Override PartName="${mainPart}" ContentType="${mainType}"/>${more}</Types>`,
  };
}

function relationships(name: string, target: string, type: string): ZipFile {
  const to = `Id="rId1" Type="${SCHEMAS}/officeDocument/2006/relationships/${type}" Target="${target}"`;
  const xmlns = `xmlns="${SCHEMAS}/package/2006/relationships"`;
  return { name, content: `${XML}<Relationships ${xmlns}><Relationship ${to}/></Relationships>` };
}

export function docx(types = contentTypes('/word/document.xml', `${WORD}.document.main+xml`)) {
  const text = '<w:body><w:p><w:r><w:t>Hello</w:t></w:r></w:p></w:body>';
  const xmlns = `xmlns:w="${SCHEMAS}/wordprocessingml/2006/main"`;
  return [
    types,
    relationships('_rels/.rels', 'word/document.xml', 'officeDocument'),
    { name: 'word/document.xml', content: `${XML}<w:document ${xmlns}>${text}</w:document>` },
  ];
}

export function xlsx(types?: ZipFile): ZipFile[] {
  const sheetType = `<Override PartName="/xl/worksheets/sheet1.xml" ContentType="${EXCEL}.worksheet+xml"/>`;
  const xmlns = `xmlns="${SCHEMAS}/spreadsheetml/2006/main"`;
  const r = `xmlns:r="${SCHEMAS}/officeDocument/2006/relationships"`;
  const sheets = '<sheets><sheet name="One" sheetId="1" r:id="rId1"/></sheets>';
  const cells = '<sheetData><row r="1"><c r="A1"><v>1</v></c></row></sheetData>';
  return [
    types ?? contentTypes('/xl/workbook.xml', `${EXCEL}.sheet.main+xml`, sheetType),
    relationships('_rels/.rels', 'xl/workbook.xml', 'officeDocument'),
    relationships('xl/_rels/workbook.xml.rels', 'worksheets/sheet1.xml', 'worksheet'),
    { name: 'xl/workbook.xml', content: `${XML}<workbook ${xmlns} ${r}>${sheets}</workbook>` },
    { name: 'xl/worksheets/sheet1.xml', content: `${XML}<worksheet ${xmlns}>${cells}</worksheet>` },
  ];
}

// Compound files: MS-CFB

export interface CfbNode {
  name: string;
  /** Of a stream. */
  content?: Buffer;
  /** Of a storage. */
  children?: CfbNode[];
}

export interface CfbOptions {
  sectorSize?: 512 | 4096;
  /** Of the root, as the 32 hex digits on disk; none unless given. */
  classId?: string;
}

const FREE = 0xffffffff;
const END_OF_CHAIN = 0xfffffffe;

/** Version 3, or 4 with sectors of 4096 bytes. Siblings hang in a row, each right of the last. */
export function compoundFile(
  top: readonly CfbNode[],
  { sectorSize = 512, classId = '0'.repeat(32) }: CfbOptions = {},
): Buffer {
  const root = { name: 'Root Entry', children: [...top] };
  const nodes: CfbNode[] = [root];
  for (const node of nodes) nodes.push(...(node.children ?? []));
  const isSmall = ({ content }: CfbNode) => content !== undefined && content.length < 4096;

  const sectors: Buffer[] = [];
  const fat: number[] = [];
  const addChain = (content: Buffer): number => {
    if (content.length === 0) return END_OF_CHAIN;
    const first = sectors.length;
    for (let at = 0; at < content.length; at += sectorSize) {
      sectors.push(padTo(sectorSize, content.subarray(at, at + sectorSize)));
      fat.push(sectors.length);
    }
    fat[fat.length - 1] = END_OF_CHAIN;
    return first;
  };

  const starts = new Map<CfbNode, number>();
  const miniFat: number[] = [];
  const mini: Buffer[] = [];
  for (const node of nodes.filter(isSmall)) {
    starts.set(node, node.content!.length === 0 ? END_OF_CHAIN : miniFat.length);
    for (let at = 0; at < node.content!.length; at += 64) {
      mini.push(padTo(64, node.content!.subarray(at, at + 64)));
      miniFat.push(at + 64 < node.content!.length ? miniFat.length + 1 : END_OF_CHAIN);
    }
  }
  for (const node of nodes) {
    if (node.content && !isSmall(node)) starts.set(node, addChain(node.content));
  }
  starts.set(root, addChain(Buffer.concat(mini)));
  const miniFatStart = addChain(fillUp(sectorSize, numbers(miniFat), 0xff));
  const entries = nodes.map((node) =>
    directoryEntry(node, nodes, starts, mini.length * 64, classId),
  );
  const directoryStart = addChain(fillUp(sectorSize, Buffer.concat(entries)));
  return Buffer.concat([
    ...header(sectors, fat, sectorSize, directoryStart, miniFatStart),
    ...sectors,
  ]);
}

/** Puts the FAT, and the DIFAT that a large one needs, behind the other sectors (2.2, 2.5). */
function header(
  sectors: Buffer[],
  fat: number[],
  sectorSize: number,
  directory: number,
  miniFat: number,
): Buffer[] {
  const perSector = sectorSize / 4;
  let fatCount = 1;
  let difatCount = 0;
  while (fatCount * perSector < sectors.length + fatCount + difatCount) {
    fatCount += 1;
    difatCount = Math.ceil(Math.max(0, fatCount - 109) / (perSector - 1));
  }
  const places = Array.from({ length: fatCount }, (_, n) => sectors.length + n);
  const firstDifat = sectors.length + fatCount;
  fat.push(...places.map(() => 0xfffffffd), ...Array<number>(difatCount).fill(0xfffffffc));
  const table = padTo(fatCount * sectorSize, numbers(fat), 0xff);
  for (let n = 0; n < fatCount; n += 1) {
    sectors.push(table.subarray(n * sectorSize, (n + 1) * sectorSize));
  }
  for (let n = 0; n < difatCount; n += 1) {
    const from = 109 + n * (perSector - 1);
    const list = padTo(sectorSize - 4, numbers(places.slice(from, from + perSector - 1)), 0xff);
    const next = n + 1 < difatCount ? firstDifat + n + 1 : END_OF_CHAIN;
    sectors.push(Buffer.concat([list, bytes([4, next])]));
  }
  return [
    Buffer.concat([Buffer.from('d0cf11e0a1b11ae1', 'hex'), Buffer.alloc(16)]),
    bytes([2, 0x3e], [2, sectorSize === 512 ? 3 : 4], [2, 0xfffe], [2, Math.log2(sectorSize)]),
    bytes([2, 6], [2, 0], [4, 0], [4, sectorSize === 512 ? 0 : 1], [4, fatCount], [4, directory]),
    bytes([4, 0], [4, 4096], [4, miniFat], [4, miniFat === END_OF_CHAIN ? 0 : 1]),
    bytes([4, difatCount > 0 ? firstDifat : END_OF_CHAIN], [4, difatCount]),
    padTo(436, numbers(places.slice(0, 109)), 0xff),
    Buffer.alloc(sectorSize - 512),
  ];
}

function directoryEntry(
  node: CfbNode,
  nodes: CfbNode[],
  starts: Map<CfbNode, number>,
  miniSize: number,
  classId: string,
): Buffer {
  const isRoot = node === nodes[0];
  const siblings = nodes.find(({ children }) => children?.includes(node))?.children ?? [];
  const right = siblings[siblings.indexOf(node) + 1];
  const id = (other: CfbNode | undefined) => (other && !isRoot ? nodes.indexOf(other) : FREE);
  const child = node.children?.[0];
  const name = Buffer.from(`${node.name}\0`, 'utf16le');
  const size = isRoot ? miniSize : (node.content?.length ?? 0);
  return Buffer.concat([
    padTo(64, name),
    bytes([2, name.length], [1, isRoot ? 5 : node.children ? 1 : 2], [1, 1]),
    bytes([4, FREE], [4, id(right)], [4, child ? nodes.indexOf(child) : FREE]),
    padTo(16, Buffer.from(isRoot ? classId : '', 'hex')),
    Buffer.alloc(20),
    bytes([4, starts.get(node) ?? 0], [8, size]),
  ]);
}

function numbers(values: readonly number[]): Buffer {
  return bytes(...values.map((value) => [4, value] as const));
}

function padTo(length: number, content: Buffer, fill = 0): Buffer {
  return Buffer.concat([content, Buffer.alloc(length - content.length, fill)]);
}

function fillUp(unit: number, content: Buffer, fill = 0): Buffer {
  return padTo(Math.ceil(content.length / unit) * unit, content, fill);
}

/** A Word document, as much of one as tells it (MS-DOC 2.1), with whatever more. */
export function doc(more: CfbNode[] = [], options?: CfbOptions): Buffer {
  const fib = padTo(4096, bytes([2, 0xa5ec], [2, 0xc1], [2, 0], [2, 0x409], [2, 0], [2, 0x200]));
  const streams = [
    { name: '1Table', content: Buffer.alloc(4096) },
    { name: 'WordDocument', content: fib },
  ];
  return compoundFile([...streams, ...more], options);
}

/** A workbook's records (MS-XLS 2.1.7.20.3): one sheet of this kind, 1 being for Excel 4 macros. */
export function workbook({ sheetKind = 0, before = [] as Buffer[] } = {}): Buffer {
  const sheet = Buffer.concat([
    bytes([4, 0], [1, 0], [1, sheetKind], [1, 3], [1, 0]),
    Buffer.from('One'),
  ]);
  const start = record(0x809, bytes([2, 0x600], [2, 5], [2, 0], [2, 0], [4, 0], [4, 0]));
  return Buffer.concat([start, ...before, record(0x85, sheet), record(0x0a)]);
}

export function record(type: number, content: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([bytes([2, type], [2, content.length]), content]);
}

export function xls(content = workbook(), more: CfbNode[] = [], options?: CfbOptions): Buffer {
  return compoundFile([{ name: 'Workbook', content }, ...more], options);
}

// PDF, pictures, text

export function pdf(text = 'Hello'): Buffer {
  const drawing = `BT /F1 12 Tf 10 10 Td (${text}) Tj ET`;
  const objects = [
    '<< /Type /Catalog /Pages 2 0 R >>',
    '<< /Type /Pages /Kids [3 0 R] /Count 1 >>',
    '<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>',
    `<< /Length ${drawing.length} >>\nstream\n${drawing}\nendstream`,
    '<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>',
  ];
  let file = '%PDF-1.4\n';
  const places = objects.map((object, n) => {
    const place = file.length;
    file += `${n + 1} 0 obj\n${object}\nendobj\n`;
    return `${String(place).padStart(10, '0')} 00000 n \n`;
  });
  const table = `xref\n0 6\n0000000000 65535 f \n${places.join('')}`;
  const trailer = `trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n${file.length}\n%%EOF\n`;
  return Buffer.from(file + table + trailer);
}

/** With an acTL chunk it is an animated one. */
export function png({ animated = false } = {}): Buffer {
  const chunk = (type: string, content: Buffer) => {
    const body = Buffer.concat([Buffer.from(type), content]);
    const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(content.length);
    check.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, check]);
  };
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    chunk('IHDR', Buffer.from('00000001000000010800000000', 'hex')),
    ...(animated
      ? [
          chunk('acTL', Buffer.from('0000000100000000', 'hex')),
          chunk(
            'fcTL',
            Buffer.from(`00000000${'00000001'.repeat(2)}${'0'.repeat(16)}000100010000`, 'hex'),
          ),
        ]
      : []),
    chunk('IDAT', deflateSync(Buffer.from([0, 128]))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

export function gif(version = '89a'): Buffer {
  const screen = bytes([2, 1], [2, 1], [1, 0x80], [1, 0], [1, 0], [3, 0], [3, 0xffffff]);
  const image = Buffer.from('2c00000000010001000002024401003b', 'hex');
  return Buffer.concat([Buffer.from(`GIF${version}`), screen, image]);
}

export function bmp(): Buffer {
  const info = bytes([4, 40], [4, 1], [4, 1], [2, 1], [2, 24], [4, 0], [4, 4], [8, 0], [8, 0]);
  return Buffer.concat([Buffer.from('BM'), bytes([4, 58], [4, 0], [4, 54]), info, Buffer.alloc(4)]);
}

/** One grey pixel. Big-endian and with its directory at the end, as scanners write it, if asked. */
export function tiff({
  bigEndian = false,
  tags = [] as [tag: number, value: number][],
} = {}): Buffer {
  const write = (length: 2 | 4, value: number) => {
    const part = bytes([length, value]);
    return bigEndian ? part.reverse() : part;
  };
  const wanted: [number, number][] = [
    [256, 1], // width
    [257, 1], // length
    [258, 8], // bits per sample
    [259, 1], // no compression
    [262, 1], // black is zero
    [273, 8], // where the pixel is
    [277, 1], // samples per pixel
    [278, 1], // rows per strip
    [279, 1], // bytes of the strip
    ...tags,
  ];
  const entries = wanted.flatMap(([tag, value]) => [
    write(2, tag),
    write(2, 4),
    write(4, 1),
    write(4, value),
  ]);
  return Buffer.concat([
    Buffer.from(bigEndian ? 'MM' : 'II'),
    write(2, 42),
    write(4, 10),
    Buffer.from([128, 0]),
    write(2, wanted.length),
    ...entries,
    write(4, 0),
  ]);
}

// Made by Pillow: one pixel each.
export const jpeg = (): Buffer =>
  Buffer.from(
    '/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////////////' +
      '////////////////////////wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAA' +
      'AAD/2gAIAQEAAD8AP//Z',
    'base64',
  );
export const webp = (): Buffer =>
  Buffer.from('UklGRhoAAABXRUJQVlA4TA4AAAAvAAAAAAcQEf0PRET/Aw==', 'base64');

export function utf16(text: string, { bigEndian = false } = {}): Buffer {
  const encoded = Buffer.from(`\ufeff${text}`, 'utf16le');
  return bigEndian ? encoded.swap16() : encoded;
}
