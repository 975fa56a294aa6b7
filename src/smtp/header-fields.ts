// The header fields of a message, each ending with CRLF and folded where it can be. No value can end
// its field, add a mailbox or be read as anything but itself: what is not plain goes through encoded
// words (RFC 2047), also a text that looks like one. All is ASCII, except an address whose local part
// is not: that has no ASCII form (RFC 6532), and its mail servers must know SMTPUTF8.
import { encodeWord, foldLines, quoteString } from 'nodemailer/lib/mime-funcs';
import MimeNode from 'nodemailer/lib/mime-node';
import { envelopeAddress } from '../address.ts';

export interface Mailbox {
  name?: string | null;
  address: string;
}

/** What the messages of a send have in common. */
export interface SharedHeader {
  from: Mailbox;
  replyTo?: string | null;
  /** Of list mail, RFC 2919: what a mail client filters by. */
  listId?: string;
}

export interface PersonalHeader {
  to: Mailbox[];
  cc?: Mailbox[];
  subject: string;
  /** Where the recipient can stop such mail (RFC 2369): one or more URIs, the first over https. */
  unsubscribe?: string[];
}

export function sharedFields({ from, replyTo, listId }: SharedHeader): string {
  return (
    field('From', mailbox(from)) +
    (replyTo ? field('Reply-To', mailbox({ address: replyTo })) : '') +
    // RFC 3834, section 5: keeps vacation responders quiet.
    field('Auto-Submitted', 'auto-generated') +
    (listId ? field('List-Id', identifier(listId)) : '')
  );
}

export function personalFields({ to, cc, subject, unsubscribe }: PersonalHeader): string {
  return (
    (to.length > 0 ? field('To', to.map(mailbox).join(', ')) : '') +
    (cc && cc.length > 0 ? field('Cc', cc.map(mailbox).join(', ')) : '') +
    (subject ? field('Subject', isPlain(subject) ? subject : encoded(subject)) : '') +
    (unsubscribe ? oneClick(unsubscribe) : '')
  );
}

/** RFC 8058: a mail client may unsubscribe by itself, with one POST to the first URI. */
function oneClick(uris: string[]): string {
  const values = uris.map((uri) => `<${uri.replace(NOT_OF_A_URI, percentEncoded)}>`);
  // Not folded, which would cut a URI.
  return `List-Unsubscribe: ${values.join(', ')}\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n`;
}

const NOT_OF_A_URI = /[^!-;=?-~]+/gu;

function percentEncoded(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

/** A Message-ID or List-Id: `<a@b.example>`. */
export function identifier(text: string): string {
  return text.replace(/[^!-~]+/gu, '');
}

export function field(name: string, value: string): string {
  const line = `${name}: ${value}`;
  return `${line.length <= 76 ? line : foldLines(line, 76)}\r\n`;
}

// One space between words, so that no folded line is blank, and none too long for a line, quoted or not.
const WORDS = /^[!-~]{1,36}(?: [!-~]{1,36})*$/u;
const BARE_NAME = /^\w{1,36}(?: \w{1,36})*$/u;
const DOT_ATOM_ADDRESS =
  /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[a-z0-9.-]+$/u;

function isPlain(text: string): boolean {
  return WORDS.test(text) && !text.includes('=?');
}

function mailbox({ name, address: given }: Mailbox): string {
  const address = addressOf(given);
  if (!name) return address;
  return `${phrase(name)} ${address.startsWith('<') ? address : `<${address}>`}`;
}

function phrase(name: string): string {
  if (BARE_NAME.test(name)) return name;
  return isPlain(name) ? quoteString(name) : encoded(name);
}

const node = new MimeNode(false);

/** In angle brackets where it would not be read as one address without. */
function addressOf(given: string): string {
  const address = envelopeAddress(given);
  if (DOT_ATOM_ADDRESS.test(address)) return address;
  // A line is folded at any white space, but only a space or tab goes on with it.
  return node.encodeHeaderValue('To', { name: '', address: address.replace(/\s+/gu, ' ') });
}

/** Encoded words, of at most 52 characters each and of whole characters. */
function encoded(text: string): string {
  const line = text.replace(/[\r\n]+/gu, ' ');
  // "B" where "Q" would escape most of it.
  return encodeWord(line, Buffer.byteLength(line) > 1.5 * line.length ? 'B' : 'Q', 52);
}
