// What may be attached: each allowed type under every name it goes by, and a table of what is refused,
// with the words the client reads. Files that lie about their structure are bounded by what is read
// of them.
import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { checkAttachment } from '../../src/emails-queue/attachment-types.ts';
import { safeFileName } from '../../src/emails-queue/file-names.ts';
import {
  EXCEL,
  WORD,
  bmp,
  compoundFile,
  contentTypes,
  doc,
  docx,
  gif,
  jpeg,
  pdf,
  png,
  record,
  tiff,
  utf16,
  webp,
  workbook,
  xls,
  xlsx,
  zip,
  type CfbNode,
} from '../support/sample-files.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'attachment-types-'));
});
afterAll(() => rm(folder, { recursive: true }));

let files = 0;
async function check(name: string, content: Buffer | string, declaredType = '') {
  files += 1;
  const path = join(folder, String(files));
  await writeFile(path, content);
  try {
    return await checkAttachment({ name, declaredType, path, size: Buffer.byteLength(content) });
  } finally {
    await rm(path);
  }
}

const DOCX_TYPE = 'application/vnd.openxmlformats-officedocument.wordprocessingml.document';
const XLSX_TYPE = 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet';
const notes = { name: 'notes/read me.txt', content: 'Hello', deflated: true };

interface Allowed {
  extensions: string[];
  type: string;
  declared: string[];
  contents: Record<string, Buffer | string>;
}

const ALLOWED: Allowed[] = [
  {
    extensions: ['pdf'],
    type: 'application/pdf',
    declared: ['application/pdf', 'application/x-pdf', 'application/acrobat'],
    contents: {
      plain: pdf(),
      'with bytes after its end': Buffer.concat([pdf(), Buffer.alloc(99)]),
      'with a ZIP inside': pdf(zip([notes]).toString('latin1')),
    },
  },
  {
    extensions: ['doc'],
    type: 'application/msword',
    declared: ['application/msword', 'application/vnd.ms-word', 'application/x-msword'],
    contents: {
      plain: doc(),
      'in large sectors': doc([], { sectorSize: 4096 }),
      'of 9 MB': doc([{ name: 'Data', content: Buffer.alloc(9_000_000, 1) }]),
      'with a workbook inside': doc([
        {
          name: 'ObjectPool',
          children: [{ name: '_1', children: [{ name: 'Workbook', content: workbook() }] }],
        },
      ]),
    },
  },
  {
    extensions: ['docx'],
    type: DOCX_TYPE,
    declared: [DOCX_TYPE],
    contents: { plain: zip(docx()) },
  },
  {
    extensions: ['xls'],
    type: 'application/vnd.ms-excel',
    declared: [
      'application/vnd.ms-excel',
      'application/msexcel',
      'application/x-msexcel',
      'application/x-excel',
    ],
    contents: {
      plain: xls(),
      'of 5,000 bytes': xls(Buffer.concat([workbook(), Buffer.alloc(5000)])),
      'of Excel 95': compoundFile([{ name: 'Book', content: workbook() }]),
      'with a chart sheet': xls(workbook({ sheetKind: 2 })),
    },
  },
  {
    extensions: ['xlsx'],
    type: XLSX_TYPE,
    declared: [XLSX_TYPE],
    contents: {
      plain: zip(xlsx()),
      // As SheetJS lists them, and ElementTree names them.
      'with a default type for macros and none in it': zip(
        xlsx({
          name: '[Content_Types].xml',
          content:
            '\ufeff<!-- by hand --><ns0:Types xmlns:ns0="urn:x"><ns0:Default Extension="bin" ' +
            'ContentType="application/vnd.ms-excel.sheet.binary.macroEnabled.main"/><ns0:Default ' +
            `Extension='xml' ContentType = '${EXCEL}.sheet.main+xml' /></ns0:Types>`,
        }),
      ),
      'with its list of types in UTF-16': zip(
        xlsx({
          name: '[Content_Types].xml',
          content: utf16(
            contentTypes('/xl/workbook.xml', `${EXCEL}.sheet.main+xml`).content as string,
          ),
        }),
      ),
      'with its list of types last': zip(xlsx().reverse()),
    },
  },
  {
    extensions: ['txt'],
    type: 'text/plain; charset=utf-8',
    declared: ['text/plain'],
    contents: {
      'in English': 'Dear Ada,\r\n\tall is well.\f',
      'in Russian': 'Дорогая Ада, всё хорошо.\n',
      'in Chinese': '亲爱的艾达，一切都好。',
      'in Arabic': 'عزيزتي آدا، كل شيء على ما يرام.',
      'in Hindi': 'प्रिय एडा, सब ठीक है।',
      'with a mark': '\ufeffGrüße aus Köln',
      'with emoji': '👩‍💻 ok',
      'of 200 KB, its letters across the blocks': `x${'é'.repeat(100_000)}`,
      'about markup': 'Write <script> and <html> so.',
      'that begins as a picture does': 'BMW and GIFs',
      'that begins as a program does': 'MZ is what programs begin with',
      'that begins with a name in brackets': '<Ada> hello',
      'with colours of a terminal': '\u001b[31mred\u001b[0m',
    },
  },
  {
    extensions: ['txt'],
    type: 'text/plain; charset=utf-16',
    declared: ['text/plain'],
    contents: { little: utf16('Grüße 👋'), big: utf16('Grüße 👋', { bigEndian: true }) },
  },
  {
    extensions: ['zip'],
    type: 'application/zip',
    declared: ['application/zip', 'application/x-zip', 'application/x-zip-compressed'],
    contents: {
      plain: zip([notes]),
      empty: zip([]),
      'with a comment': zip([notes], { comment: Buffer.from('made by hand') }),
      'with long records': zip([notes], { zip64: true }),
      encrypted: zip([{ ...notes, claims: { flags: 0x801 } }]),
      'of an Android project': zip([{ name: 'app/src/main/AndroidManifest.xml' }]),
      'of documents': zip([
        { name: 'a.docx', content: zip(docx()) },
        { name: '報告.pdf', content: pdf() },
      ]),
    },
  },
  {
    extensions: ['jpg', 'jpeg'],
    type: 'image/jpeg',
    declared: ['image/jpeg', 'image/jpg', 'image/pjpeg'],
    contents: { plain: jpeg(), 'with bytes after its end': Buffer.concat([jpeg(), png()]) },
  },
  {
    extensions: ['png'],
    type: 'image/png',
    declared: ['image/png', 'image/x-png'],
    contents: { plain: png(), animated: png({ animated: true }) },
  },
  {
    extensions: ['gif'],
    type: 'image/gif',
    declared: ['image/gif'],
    contents: { new: gif('89a'), old: gif('87a') },
  },
  {
    extensions: ['bmp'],
    type: 'image/bmp',
    declared: ['image/bmp', 'image/x-bmp', 'image/x-ms-bmp', 'image/x-windows-bmp'],
    contents: { plain: bmp() },
  },
  {
    extensions: ['webp'],
    type: 'image/webp',
    declared: ['image/webp'],
    contents: { plain: webp() },
  },
  {
    extensions: ['tif', 'tiff'],
    type: 'image/tiff',
    declared: ['image/tiff', 'image/tif', 'image/x-tiff', 'image/x-tif'],
    contents: {
      plain: tiff(),
      'of big-endian numbers': tiff({ bigEndian: true }),
      'with the print tag that Sony uses too': tiff({ tags: [[50_341, 0]] }),
    },
  },
];

describe('an allowed file', () => {
  const rows = ALLOWED.flatMap((allowed) =>
    Object.entries(allowed.contents).map(
      ([label, content]) => [allowed.type, label, content, allowed] as const,
    ),
  );
  it.each(rows)('%s, %s', async (type, _, content, { extensions, declared }) => {
    for (const extension of extensions) {
      for (const each of ['', 'application/octet-stream', 'binary/octet-stream', ...declared]) {
        for (const name of [`Ada.${extension}`, `отчёт v1.2 2026.01.${extension.toUpperCase()}`]) {
          const taken = { name, contentType: type };
          expect(await check(name, content, each), `${name} as ${each}`).toEqual(taken);
        }
      }
    }
  });
});

const listed = (content: string) => zip(docx({ name: '[Content_Types].xml', content }));
const withMain = (type: string, more = '') =>
  zip(docx(contentTypes('/word/document.xml', type, more)));
const override = (part: string, type: string) =>
  `<Override PartName="${part}" ContentType="${type}"/>`;
const stream = (name: string): CfbNode => ({ name, content: Buffer.alloc(9) });
const storage = (name: string, ...children: CfbNode[]): CfbNode => ({ name, children });
const start = (hex: string) => Buffer.concat([Buffer.from(hex, 'hex'), Buffer.alloc(99)]);

const WORD_MAIN = `${WORD}.document.main+xml`;
const VBA = 'application/vnd.ms-office.vbaProject';
const DOCM = 'application/vnd.ms-word.document.macroEnabled.main+xml';
const XLTM = 'application/vnd.ms-excel.template.macroEnabled.main+xml';
const PPTX = 'application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml';
const mainPart = override('/word/document.xml', WORD_MAIN);
const vbaProject = storage('VBA', stream('_VBA_PROJECT'));
const binary = '<Default Extension="bin" ContentType="application/vnd.ms-office.vbaProject"/>';
const manyFonts = Array<Buffer>(400).fill(record(0x31, Buffer.alloc(300)));
const exe = start('4d5a9000');
const svg = '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>';
const jar = zip([{ name: 'META-INF/MANIFEST.MF' }]);
const comment = Buffer.from('hi');

const ONLY =
  'what can be attached is PDF, DOC, DOCX, XLS, XLSX, TXT, ZIP, JPEG, PNG, GIF, BMP, WEBP, TIFF';
const hidden = (extension: string) =>
  `has a second extension, .${extension}, of a program, script or macro file`;

const REFUSED_BY_NAME: [name: string, content: Buffer | string, reason: string][] = [
  ['setup.exe', exe, `has the extension .exe; ${ONLY}`],
  ['README', 'hello', `has no extension; ${ONLY}`],
  ['page.html', '<html>', `has the extension .html; ${ONLY}`],
  ['logo.svg', svg, `has the extension .svg; ${ONLY}`],
  ['letter.docm', zip(docx()), `has the extension .docm; ${ONLY}`],
  ['cod\u202efdp.exe', pdf(), `has the extension .exe; ${ONLY}`],
  ['a.pdf:evil.exe', exe, `has the extension .exe; ${ONLY}`],
  ['report.exe. . .', exe, `has the extension .exe; ${ONLY}`],
  ['report\uff0epdf', pdf(), `has no extension; ${ONLY}`],
  ['report.ｐｄｆ', pdf(), `has the extension .ｐｄｆ; ${ONLY}`],
  ['a.constructor', pdf(), `has the extension .constructor; ${ONLY}`],
  ['invoice.exe.pdf', pdf(), hidden('exe')],
  ['invoice.EXE .pdf', pdf(), hidden('exe')],
  ['invoice\uff0eexe.pdf', pdf(), hidden('exe')],
  ['invoice\u3002exe.pdf', pdf(), hidden('exe')],
  ['a.js.txt', 'alert(1)', hidden('js')],
  ['x.html.zip', zip([notes]), hidden('html')],
  ['x.php.v2.jpg', jpeg(), hidden('php')],
  ['book.xlsm.xlsx', zip(xlsx()), hidden('xlsm')],
  ['a.pdf', '', 'is empty'],
];

const REFUSED_BY_DECLARATION: [name: string, content: Buffer | string, declared: string][] = [
  ['a.pdf', pdf(), 'image/png'],
  ['a.docx', zip(docx()), 'application/msword'],
  ['a.docx', zip(docx()), 'application/zip'],
  ['a.zip', zip([notes]), DOCX_TYPE],
  ['a.txt', 'hello', 'text/html'],
  ['a.png', png(), 'image/svg+xml'],
];

const MARKUP = 'HTML, SVG or other markup';
const NO_TEXT = 'not text in UTF-8';
const UNKNOWN = 'of no known type';
const ENABLED = 'a macro-enabled Office file';
const MACROS = 'an Office file with macros';
const PASSWORD = 'under a password, which cannot be checked';
const NEITHER = 'a package that is neither DOCX nor XLSX';

/** Ends "cannot be attached as …: its content is …". */
const REFUSED_BY_CONTENT: [name: string, content: Buffer | string, is: string][] = [
  // Programs and scripts
  ['a.pdf', exe, 'a Windows program'],
  ['a.doc', start('7f454c46020101'), 'a Linux program'],
  ['a.jpg', start('cffaedfe'), 'a macOS program'],
  ['a.png', start('cafebabe00000034'), 'a Java program'],
  ['a.gif', start('4c0000000114020000000000c000000000000046'), 'a Windows shortcut'],
  ['a.txt', exe, 'a Windows program'],
  ['a.txt', '#!/bin/sh\nrm -rf ~', 'a script'],
  ['a.pdf', '#!/usr/bin/env python3\n', 'a script'],
  // Markup
  ['a.txt', '<!DOCTYPE html><p>Hi', MARKUP],
  ['a.txt', ` \r\n\t<HTML>${'x'.repeat(99)}`, MARKUP],
  ['a.txt', '\ufeff<ScRiPt src="//x">', MARKUP],
  ['a.txt', `${' '.repeat(5000)}<script>`, MARKUP],
  ['a.txt', utf16('<svg onload=alert(1)>'), MARKUP],
  ['a.txt', '<?xml version="1.0"?><svg/>', MARKUP],
  ['a.txt', '<!-- --><img onerror=alert(1)>', MARKUP],
  ['a.pdf', '<html><script>alert(1)</script>', MARKUP],
  ['a.png', svg, MARKUP],
  ['a.xls', '<html><table><tr><td>1', MARKUP],
  // No text
  ['a.txt', 'a\u0000b', NO_TEXT],
  ['a.txt', 'bell\u0007', NO_TEXT],
  ['a.txt', Buffer.from('Grüße', 'latin1'), NO_TEXT],
  ['a.txt', `${'x'.repeat(300_000)}\u0001`, NO_TEXT],
  ['a.txt', Buffer.from('é').subarray(0, 1), NO_TEXT],
  ['a.txt', Buffer.from('feffd800', 'hex'), NO_TEXT],
  ['a.txt', utf16('a\u0000b'), NO_TEXT],
  ['a.txt', '{\\rtf1 hi}', 'RTF'],
  ['a.txt', pdf(), 'PDF'],
  // Another type
  ['a.pdf', png(), 'PNG'],
  ['a.pdf', 'just text', UNKNOWN],
  ['a.pdf', Buffer.concat([Buffer.from('\n'), pdf()]), UNKNOWN],
  ['a.pdf', Buffer.concat([Buffer.from('\ufeff'), pdf()]), UNKNOWN],
  ['a.png', jpeg(), 'JPEG'],
  ['a.jpg', gif(), 'GIF'],
  ['a.gif', 'GIF but not quite', UNKNOWN],
  ['a.bmp', 'BMW drivers since 1979', UNKNOWN],
  ['a.webp', 'RIFF\u0010\u0000\u0000\u0000WAVEfmt ', 'WAV'],
  ['a.doc', '{\\rtf1 hi}', 'RTF'],
  ['a.doc', zip(docx()), 'DOCX'],
  ['a.docx', doc(), 'DOC'],
  ['a.doc', xls(), 'XLS'],
  ['a.docx', zip(xlsx()), 'XLSX'],
  ['a.docx', zip([notes]), 'ZIP'],
  ['a.zip', start('377abcaf271c0004'), '7Z'],
  ['a.zip', start('1f8b0800000000000003'), 'a gzip archive'],
  // Archives that are more than archives
  ['a.zip', zip(docx()), 'DOCX'],
  ['a.zip', zip(xlsx()), 'XLSX'],
  ['a.zip', jar, 'a Java program (JAR)'],
  ['a.docx', zip([...docx(), { name: 'META-INF/MANIFEST.MF' }]), 'a Java program (JAR)'],
  ['a.zip', zip([{ name: 'classes.dex' }]), 'an Android program (APK)'],
  ['a.zip', zip([{ name: 'Payload/x.app/x' }]), 'an iOS program (IPA)'],
  ['a.zip', zip([{ name: 'META-INF/container.xml' }]), 'an EPUB book'],
  ['a.zip', zip([{ name: 'mimetype' }]), 'an OpenDocument or EPUB file'],
  ['a.zip', listed('<Types/>'), NEITHER],
  // Macros
  ['a.docx', withMain(DOCM), ENABLED],
  ['a.zip', withMain(DOCM), ENABLED],
  ['a.xlsx', zip(xlsx(contentTypes('/xl/workbook.xml', XLTM))), ENABLED],
  ['a.docx', zip([...docx(), { name: 'word/vbaProject.bin' }]), ENABLED],
  ['a.docx', zip([...docx(), { name: 'WORD\\VBAPROJECT.BIN' }]), ENABLED],
  ['a.zip', zip([{ name: 'x/vbaProject.bin' }]), ENABLED],
  ['a.xlsx', zip([...xlsx(), { name: 'xl/macrosheets/sheet1.xml' }]), ENABLED],
  ['a.docx', withMain(WORD_MAIN, binary.replace('bin', 'xml')), ENABLED],
  ['a.docx', withMain(WORD_MAIN, override('/a>b', VBA)), ENABLED],
  ['a.docx', withMain(WORD_MAIN, override("/ ContentType='x'", VBA)), ENABLED],
  ['a.docx', listed(mainPart + override('/x', 'vba&#80;roject')), 'damaged'],
  ['a.docx', listed(`<!DOCTYPE x [<!ENTITY y "z">]><Types>${mainPart}`), 'damaged'],
  ['a.docx', listed(`<Types><!-- ${mainPart} --></Types>`), NEITHER],
  ['a.doc', doc([storage('Macros', vbaProject)]), MACROS],
  ['a.doc', doc([storage('ObjectPool', storage('_1', vbaProject))]), MACROS],
  ['a.xls', xls(workbook(), [storage('_VBA_PROJECT_CUR', vbaProject)]), MACROS],
  ['a.xls', xls(workbook({ sheetKind: 1 })), MACROS],
  ['a.xls', xls(workbook({ sheetKind: 1, before: manyFonts })), MACROS],
  // What cannot be looked into
  ['a.docx', compoundFile([stream('EncryptedPackage')]), `an Office file ${PASSWORD}`],
  ['a.xls', xls(workbook({ before: [record(0x2f)] })), `a workbook ${PASSWORD}`],
  // Other Office files
  ['a.docx', withMain(`${WORD}.template.main+xml`), 'an Office template'],
  ['a.docx', withMain(PPTX), 'a PowerPoint presentation'],
  ['a.docx', withMain(WORD_MAIN, override('/x', PPTX)), 'several Office files in one'],
  ['a.doc', compoundFile([stream('PowerPoint Document')]), 'a PowerPoint presentation'],
  [
    'a.doc',
    compoundFile([stream('__properties_version1.0'), storage('__attach', stream('WordDocument'))]),
    'an Outlook message',
  ],
  [
    'a.doc',
    doc([], { classId: '84100c0000000000c000000000000046' }),
    'a Windows Installer package',
  ],
  ['a.doc', doc([stream('Workbook')]), 'several Office files in one'],
  ['a.doc', compoundFile([stream('Contents')]), 'a compound file that is neither DOC nor XLS'],
  ['a.doc', compoundFile([storage('WordDocument')]), 'a compound file that is neither DOC nor XLS'],
  // Two files in one
  ['a.gif', Buffer.concat([gif(), jar]), 'GIF and a ZIP archive in one'],
  ['a.pdf', Buffer.concat([pdf(), zip([notes])]), 'PDF and a ZIP archive in one'],
  ['a.jpg', Buffer.concat([jpeg(), zip([notes], { comment })]), 'JPEG and a ZIP archive in one'],
  ['a.doc', Buffer.concat([doc(), zip([notes])]), 'DOC and a ZIP archive in one'],
  ['a.zip', Buffer.concat([pdf(), zip([notes])]), 'PDF and a ZIP archive in one'],
  ['a.zip', Buffer.concat([exe, zip([notes])]), 'a Windows program'],
  ['a.zip', Buffer.concat([Buffer.from('x'), zip([notes])]), UNKNOWN],
];

/** The whole sentence that says why. */
function cannot(name: string, is: string): { refused: string } {
  const label = name.slice(2).toUpperCase().replace('JPG', 'JPEG').replace(/^TIF$/, 'TIFF');
  return { refused: `"${name}" cannot be attached as ${label}: its content is ${is}` };
}

describe('a refused file', () => {
  it.each(REFUSED_BY_NAME)('by its name: %j', async (name, bytes, reason) => {
    expect(await check(name, bytes)).toEqual({ refused: `"${safeFileName(name)}" ${reason}` });
  });

  it.each(REFUSED_BY_DECLARATION)('by its declared type: %s', async (name, bytes, declared) => {
    const label = name.slice(2).toUpperCase();
    const refused = `"${name}" is declared as ${declared}, which is not ${label}`;
    expect(await check(name, bytes, declared)).toEqual({ refused });
  });

  it.each(REFUSED_BY_CONTENT.map(([name, bytes, is], n) => [n + 1, name, is, bytes] as const))(
    'by its content, %i: %s that is %s',
    async (_, name, is, bytes) => {
      expect(await check(name, bytes)).toEqual(cannot(name, is));
    },
  );

  it('is told without a name if it has none', async () => {
    const refused = 'A file without a usable name cannot be attached';
    for (const name of ['', '..', '\u202e', 'folder/']) {
      expect(await check(name, pdf())).toEqual({ refused });
    }
  });

  it('is not repeated in full, whatever it declares', async () => {
    const answer = await check('a.pdf', pdf(), `x/${'y'.repeat(9999)}`);
    expect(JSON.stringify(answer).length).toBeLessThan(250);
  });
});

describe('a file that lies about its structure', () => {
  const MIB = 1024 * 1024;
  const word = doc();
  const large = doc([{ name: 'Data', content: Buffer.alloc(9_000_000, 1) }]);
  const typeList = docx()[0]!;

  const withEntry = (entry: object) => zip([{ ...typeList, ...entry }]);
  const patched = (file: Buffer, at: number, value: number) => {
    const copy = Buffer.from(file);
    copy.writeUInt32LE(value, at);
    return copy;
  };
  const sector = (file: Buffer, pointer: number) => 512 * (1 + file.readUInt32LE(pointer));
  const [DIRECTORY, DIFAT, FAT] = [48, 68, 76]; // where the header has their places
  const bomb = { content: Buffer.alloc(64 * MIB, '<'), deflated: true };
  const twentyThousandAndOne = Array.from({ length: 20_001 }, (_, n) => ({ name: String(n) }));
  const chunks = Buffer.alloc(8 * MIB, '\u0000\u0000\u0000\u0000tEXtcccc');

  const damaged = (name: string) => cannot(name, 'damaged');
  const tooMany = cannot('a.zip', 'an archive of more than 20000 files, too many to check');
  const loop = patched(
    word,
    sector(word, FAT) + 4 * word.readUInt32LE(DIRECTORY),
    word.readUInt32LE(DIRECTORY),
  );

  it.each<[string, Buffer, object, number]>([
    ['a million entries', zip([notes], { zip64: true, claims: { count: 1e6 } }), tooMany, 2000],
    ['65,535 entries', zip([notes], { claims: { count: 0xffff } }), tooMany, 2000],
    ['2^53 entries', zip([notes], { zip64: true, claims: { count: 2 ** 53 } }), tooMany, 2000],
    ['20,001 entries', zip(twentyThousandAndOne), tooMany, 70_000],
    ['no directory', zip([notes], { claims: { offset: 0 } }), damaged('a.zip'), 2000],
    ['a far directory', zip([notes], { claims: { offset: 0x7fffffff } }), damaged('a.zip'), 2000],
    ['too few entries', zip([notes], { claims: { count: 2 } }), damaged('a.zip'), 3000],
    ['too many entries', zip([notes], { claims: { count: 0 } }), damaged('a.zip'), 3000],
    ['two archives', Buffer.concat([zip([notes]), jar]), damaged('a.zip'), 3000],
    ['end records only', Buffer.alloc(8 * MIB, 'PK\u0005\u0006'), damaged('a.zip'), 70_000],
    [
      '8 MiB before',
      Buffer.concat([Buffer.alloc(8 * MIB, 'PK\u0003\u0004'), jar]),
      damaged('a.zip'),
      140_000,
    ],
  ])('ZIP: %s', (_, file, expected, most) => expectBounded('a.zip', file, expected, most));

  it.each<[string, Buffer, number]>([
    ['inflates to 64 MiB', withEntry(bomb), 140_000],
    [
      'is no deflated data',
      withEntry({ content: 'x', deflated: false, claims: { method: 8 } }),
      3000,
    ],
    ['has 4 GB', withEntry({ claims: { compressedSize: 0xfffffffe } }), 3000],
    ['is elsewhere', withEntry({ claims: { offset: 0xfffffff0 } }), 3000],
    ['is another file', zip([notes, { ...typeList, claims: { offset: 0 } }]), 3000],
    ['is encrypted', withEntry({ claims: { flags: 1 } }), 3000],
    ['is there twice', zip([...docx(), { name: '[content_types].XML' }]), 5000],
  ])('DOCX: a list of types that %s', (_, file, most) =>
    expectBounded('a.docx', file, damaged('a.docx'), most),
  );

  it.each<[string, Buffer]>([
    ['a directory that loops', loop],
    ['a directory outside', patched(word, DIRECTORY, 0x00ffffff)],
    ['a FAT outside', patched(word, FAT, 0x00ffffff)],
    ['a DIFAT outside', patched(large, DIFAT, 0x00ffffff)],
    ['siblings in a ring', patched(word, sector(word, DIRECTORY) + 128 + 68, 2)],
    ['a child that is not there', patched(word, sector(word, DIRECTORY) + 76, 0x00ffffff)],
    ['sectors of 2^255 bytes', patched(word, 30, 255)],
    ['a header alone', word.subarray(0, 512)],
    ['8 MiB of nothing', Buffer.concat([word.subarray(0, 512), Buffer.alloc(8 * MIB)])],
  ])('DOC: %s', (_, file) => expectBounded('a.doc', file, damaged('a.doc'), 80_000));

  it('DOC: a DIFAT that loops', () => {
    const file = patched(large, sector(large, DIFAT) + 508, large.readUInt32LE(DIFAT));
    const taken = { name: 'a.doc', contentType: 'application/msword' };
    return expectBounded('a.doc', file, taken, 160_000);
  });

  it('XLS: a stream that loops', () => {
    const file = xls(workbook({ before: manyFonts }));
    return expectBounded('a.xls', patched(file, sector(file, FAT), 0), damaged('a.xls'), 10_000);
  });

  // These are walked by file-type.
  it.each<[string, string, Buffer, object]>([
    [
      '700,000 chunks',
      'a.png',
      Buffer.concat([png().subarray(0, 33), chunks]),
      { name: 'a.png', contentType: 'image/png' },
    ],
    [
      '65,535 tags',
      'a.tif',
      Buffer.concat([start('49492a0008000000ffff'), chunks]),
      { name: 'a.tif', contentType: 'image/tiff' },
    ],
    [
      'tags before tags',
      'a.png',
      Buffer.alloc(8 * MIB, 'ID3\u0003\u0000\u0000\u0000\u0000\u0000\u0000'),
      cannot('a.png', UNKNOWN),
    ],
    ['marks before marks', 'a.png', Buffer.alloc(8 * MIB, '\ufeff'), cannot('a.png', UNKNOWN)],
  ])('%s', (_, name, file, expected) => expectBounded(name, file, expected, 100_000));

  /** Counts what is read of the file, by whomever. */
  async function expectBounded(name: string, content: Buffer, expected: object, most: number) {
    const probe = await open(folder);
    const prototype = Object.getPrototypeOf(probe) as FileHandle;
    await probe.close();
    const spy = vi.spyOn(prototype, 'read');
    try {
      expect(await check(name, content)).toEqual(expected);
      const reads = await Promise.all(spy.mock.settledResults.map(({ value }) => value));
      const bytes = reads.reduce((sum: number, { bytesRead }) => sum + bytesRead, 0);
      expect(bytes).toBeGreaterThan(0);
      expect(bytes).toBeLessThan(most);
    } finally {
      spy.mockRestore();
    }
  }

  const samples = ALLOWED.flatMap(({ extensions, contents }) =>
    Object.values(contents)
      .map((content) => [`a.${extensions[0]}`, Buffer.from(content)] as const)
      .filter(([, content]) => content.length < 100_000),
  );
  const sentence = (answer: Awaited<ReturnType<typeof check>>) =>
    'refused' in answer ? answer.refused : `"${answer.name}" is ${answer.contentType}`;

  it('is refused or taken, not thrown at, wherever it is cut', async () => {
    for (const [name, whole] of samples) {
      const step = Math.ceil(whole.length / 60);
      for (let length = 0; length < whole.length; length += step) {
        expect(sentence(await check(name, whole.subarray(0, length)))).toContain(`"${name}" `);
      }
    }
  });

  it('is refused or taken, not thrown at, whatever its bytes are', async () => {
    const starts = ['', 'PK\u0003\u0004', 'PK\u0005\u0006', '%PDF-', 'GIF89a', 'BM', 'II*\u0000'];
    const noise = fc
      .tuple(fc.constantFrom(...starts), fc.uint8Array({ maxLength: 2000 }))
      .map(([first, rest]) => Buffer.concat([Buffer.from(first, 'latin1'), rest]));
    const flips = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 });
    const flipped = fc.tuple(fc.constantFrom(...samples), flips).map(([[name, whole], changes]) => {
      const copy = Buffer.from(whole);
      for (const [at, value] of changes) copy[at % copy.length] = value;
      return [name, copy] as const;
    });
    const names = fc.constantFrom(...samples.map(([name]) => name));
    await fc.assert(
      fc.asyncProperty(names, noise, flipped, async (name, random, [own, sample]) => {
        for (const [as, bytes] of [
          [name, random],
          [name, sample],
          [own, sample],
        ] as const) {
          expect(sentence(await check(as, bytes))).toContain(`"${as}" `);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('fails if it cannot be read', async () => {
    const file = { name: 'a.pdf', declaredType: '', path: join(folder, 'none'), size: 9 };
    await expect(checkAttachment(file)).rejects.toThrow('ENOENT');
  });
});

describe('a safe file name', () => {
  it.each([
    ['report.pdf', 'report.pdf'],
    ['C:\\Users\\Ada\\report.pdf', 'report.pdf'],
    ['../../etc/passwd', 'passwd'],
    ['a/b\\c/d.txt', 'd.txt'],
    ['..\\..', undefined],
    ['folder/', undefined],
    ['', undefined],
    [' . . ', undefined],
    ['\u200b\u202e\u0000', undefined],
    ['.htaccess', 'htaccess'],
    ['...a.txt. . ', 'a.txt'],
    ['a\r\nBcc: x@y.example\r\n.pdf', 'aBcc_ x@y.example.pdf'],
    ['nul\u0000.pdf', '_nul.pdf'],
    ['<a>:"b"|?*.txt', '_a___b____.txt'],
    ['cod\u202efdp.txt', 'codfdp.txt'],
    ['a\u2066b\u2069\u200f.txt', 'ab.txt'],
    ['in\u200bvo\u00adi\u2060ce\ufeff.pdf', 'invoice.pdf'],
    ['a\u200db\u200c\ufe0f.pdf', 'ab.pdf'],
    ['re\u0301sume\u0301.pdf', 'résumé.pdf'],
    ['e\u200b\u0301.pdf', 'é.pdf'],
    ['\ud800a\udc00.pdf', 'a.pdf'],
    ['CON', '_CON'],
    ['con.txt', '_con.txt'],
    ['Lpt1 .tar.zip', '_Lpt1 .tar.zip'],
    ['COM².pdf', '_COM².pdf'],
    ['CONIN$.txt', '_CONIN$.txt'],
    ['console.txt', 'console.txt'],
    // Names of people who write other scripts stay as they are, joiners that spell words included.
    ['отчёт за 2025.xlsx', 'отчёт за 2025.xlsx'],
    ['2025年度報告書（最終）.pdf', '2025年度報告書（最終）.pdf'],
    ['تقرير.pdf', 'تقرير.pdf'],
    ['می‌خواهم.pdf', 'می‌خواهم.pdf'],
    ['ශ්‍රී ලංකා.pdf', 'ශ්‍රී ලංකා.pdf'],
    ['葛\u{e0100}.pdf', '葛\u{e0100}.pdf'],
    ['👨‍👩‍👧 ❤️.jpg', '👨‍👩‍👧 ❤️.jpg'],
    // 150 characters, 255 bytes, the extension kept.
    [`${'a'.repeat(300)}.pdf`, `${'a'.repeat(146)}.pdf`],
    [`${'字'.repeat(300)}.jpeg`, `${'字'.repeat(83)}.jpeg`],
    [`${'😀'.repeat(300)}.tiff`, `${'😀'.repeat(62)}.tiff`],
    [`a.${'b'.repeat(300)}`, `a.${'b'.repeat(148)}`],
  ])('of %j is %j', (given, safe) => {
    expect(safeFileName(given)).toBe(safe);
  });

  const part = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 8 }),
    fc.string({ unit: 'grapheme', maxLength: 40 }),
    fc.constantFrom(
      '.',
      ' ',
      '/',
      '\\',
      '.pdf',
      'con',
      'nul.',
      'COM¹',
      '\u200d',
      '\u200c',
      '\ufe0f',
      '\u202e',
      '\u0301',
      '\u0653',
    ),
    fc.constantFrom(
      'e',
      'ا',
      'क',
      '\u094d',
      'ে',
      'া',
      'ශ',
      '👩',
      '🏽',
      '字',
      '\u1100',
      '\u1161',
      '\u212b',
      '\ud800',
    ),
    fc.nat(300).map((length) => '名'.repeat(length)),
  );

  it('keeps every rule, and itself', () => {
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 30 }).map((parts) => parts.join('')),
        (given) => {
          const safe = safeFileName(given);
          if (safe === undefined) return;
          expect(safeFileName(safe)).toBe(safe);
          expect(safe.length).toBeGreaterThan(0);
          expect(Array.from(safe).length).toBeLessThanOrEqual(150);
          expect(Buffer.byteLength(safe)).toBeLessThanOrEqual(255);
          expect(safe).not.toMatch(
            /[<>:"|?*/\\]|[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\u200b\u2060\ufeff]/u,
          );
          expect(safe).not.toMatch(/^[.\s]|[.\s]$/u);
          expect(safe).not.toMatch(/^(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])\s*(?:\.|$)/iu);
          expect(safe.isWellFormed()).toBe(true);
          expect(safe.normalize('NFC')).toBe(safe);
        },
      ),
      { numRuns: 3000 },
    );
  });

  it('keeps the extension, which decides', () => {
    const extension = fc.constantFrom('pdf', 'docx', 'jpeg', 'txt');
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', minLength: 1, maxLength: 400 }),
        extension,
        (stem, ending) => {
          expect(safeFileName(`${stem}x.${ending}`)).toMatch(new RegExp(`\\.${ending}$`, 'u'));
        },
      ),
    );
  });
});
