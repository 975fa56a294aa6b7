// Names of attached files: made safe for every system they may be saved on, and read for the types
// they claim. Nothing here fails; a name of which nothing is left is undefined. RFC 6266, section
// 4.3, says what recipients should guard against (path parts, extensions, device names, control
// characters); nodemailer then writes the name into the header (RFC 2231, RFC 5987).

// Windows, "Naming Files, Paths, and Namespaces": reserved characters and device names.
const RESERVED_CHARACTERS = /[<>:"|?*]/gu;
const DEVICE = /^(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\s*(?:\.|$)/iu;

// Controls, bidi controls, zero-width and other ignorable characters, lone surrogates. Joiners and
// variation selectors are part of words in some scripts, and go by a rule of their own.
const INVISIBLE =
  /[[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{NChar}\p{DI}\ufff9-\ufffb]--[\u200c\u200d\p{VS}]]/gv;

// After RFC 5892, appendix A.1 and A.2: a joiner says something only between letters of the scripts
// that join (Persian, Sinhala …), or between the parts of an emoji. Elsewhere it only hides.
const JOINING = String.raw`[[\p{L}\p{M}]--[\p{sc=Latn}\p{sc=Grek}\p{sc=Cyrl}\p{sc=Zyyy}\p{sc=Zinh}]]`;
const EMOJI = String.raw`\p{ExtPict}`;
const JOINERS = new RegExp(
  String.raw`((?<=${JOINING})[\u200c\u200d](?=${JOINING})` +
    String.raw`|(?<=${EMOJI}\p{EMod}?\ufe0f?)\u200d(?=${EMOJI})` +
    String.raw`|(?<=${JOINING}|${EMOJI})\p{VS})` +
    String.raw`|[\u200c\u200d\p{VS}]`,
  'gv',
);

// The look-behind keeps a long run in the middle from being tried from each of its characters.
const EDGES = /^[\s.]+|(?<![\s.])[\s.]+$/gu;

const MOST_CHARACTERS = 150;
const MOST_BYTES = 255; // of a name in ext4, APFS and most others

/**
 * The name as it goes into the mail: its last path part, in NFC, with nothing invisible or reserved,
 * at most 150 characters and 255 bytes, the extension kept. Letters of every script stay as they
 * are. The same name again when given its own result.
 */
export function safeFileName(name: string): string | undefined {
  const visible = lastPart(name)
    .normalize('NFC')
    .replace(INVISIBLE, '')
    .normalize('NFC')
    .replace(JOINERS, '$1')
    .normalize('NFC');
  const plain = visible.replace(RESERVED_CHARACTERS, '_').replace(EDGES, '');
  if (plain === '') return undefined;
  return shorten(DEVICE.test(plain) ? `_${plain}` : plain);
}

/** Lower case, without the dot; '' if there is none. Of a safe name. */
export function extensionOf(name: string): string {
  return /[^.]\.([^.]+)$/u.exec(name)?.[1]?.toLowerCase() ?? '';
}

/**
 * The extension of a program, script or macro file that stands before the last one, as in
 * `invoice.exe.pdf`. Look-alike dots count as dots. Versions, dates and domains are no extensions.
 */
export function innerProgramExtension(name: string): string | undefined {
  const parts = name.normalize('NFKC').toLowerCase().split(/[.。]/u);
  return parts
    .slice(1, -1)
    .map((part) => part.trim())
    .find((part) => PROGRAMS.has(part));
}

function lastPart(name: string): string {
  return name.slice(Math.max(name.lastIndexOf('/'), name.lastIndexOf('\\')) + 1);
}

function shorten(name: string): string {
  const extension = /\.[\p{L}\p{N}]{1,16}$/u.exec(name)?.[0] ?? '';
  const stem = name.slice(0, name.length - extension.length);
  let characters = Array.from(extension).length;
  let bytes = Buffer.byteLength(extension);
  let end = 0;
  for (const character of stem) {
    characters += 1;
    bytes += Buffer.byteLength(character);
    if (characters > MOST_CHARACTERS || bytes > MOST_BYTES) {
      return stem.slice(0, end).replace(/[\s.\u200c\u200d]+$/u, '') + extension;
    }
    end += character.length;
  }
  return name;
}

// What Outlook and Gmail block, less data that is no program (.cer, .img …), and what web servers
// run. Left out because names of real documents hold them as the end of a domain: com, pl, so.
const PROGRAMS = new Set(
  `exe scr pif bat cmd msi msp mst msc msix msixbundle appx appxbundle appref-ms application cpl dll
  sys drv ocx hta chm hlp gadget lnk url scf inf reg library-ms search-ms settingcontent-ms diagcab
  js jse mjs cjs vbs vbe vb ws wsf wsc wsh sct ps1 ps1xml psc1 psm1 psd1 jar jnlp war ear class apk
  aab xapk ipa app dmg pkg command deb rpm appimage run sh bash zsh csh ksh fish py pyc pyw pyz pyzw
  rb php php3 php4 php5 php7 phtml phar asp aspx ashx cgi jsp jspx htm html xhtml shtml mht mhtml
  svg svgz swf docm dotm xlsm xltm xlam xlsb xll xla pptm potm ppsm ppam sldm one vhd vhdx`.split(
    /\s+/u,
  ),
);
