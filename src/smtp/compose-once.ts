// Composes the messages of one send: what they share is encoded once, a message is that with its own
// values put in. Gives what `compose` gives for the same mail, in a fraction of the time, but always
// quoted-printable. Nothing fails, and no value can reach beyond its place.
import { field, identifier, personalFields, sharedFields } from './header-fields.ts';
import type { Mailbox, SharedHeader } from './header-fields.ts';
import type { Pattern } from './pattern.ts';
import { joinPieces, quote } from './quoted-printable.ts';

export interface MailFrame extends SharedHeader {
  /** Its gaps refer to values that are HTML already. */
  html: Pattern;
  text: Pattern;
}

export interface PersonalMail {
  messageId: string;
  date: Date;
  to: Mailbox;
  subject: string;
  unsubscribe?: string[];
  /** What the gaps of both patterns refer to. */
  values: readonly string[];
}

/** "=_" is in no quoted-printable text, so no content can have the boundary in it (RFC 2045, section 6.7). */
const BOUNDARY = '=_part';

/**
 * Prepares what the messages share; the function it returns makes one message. All its lines end with
 * CRLF, and none begins with a dot.
 */
export function composeOnce(frame: MailFrame): (mail: PersonalMail) => Buffer {
  const shared = `${sharedFields(frame)}MIME-Version: 1.0\r\n`;
  const text = frame.text.fixed.map(quote);
  const html = frame.html.fixed.map(quote);
  return ({ messageId, date, to, subject, unsubscribe, values }) => {
    const pieces = values.map(quote);
    const header =
      field('Message-ID', identifier(messageId)) +
      field('Date', date.toUTCString().replace('GMT', '+0000')) +
      personalFields({ to: [to], subject, unsubscribe });
    const body = bodyOf(
      joinPieces(text, frame.text.gaps, pieces),
      joinPieces(html, frame.html.gaps, pieces),
    );
    return Buffer.from(header + shared + body);
  };
}

/** An empty part is left out. */
function bodyOf(text: string, html: string): string {
  if (!html) return `${TEXT_FIELDS}${text}\r\n`;
  if (!text) return `${HTML_FIELDS}${html}\r\n`;
  return `${BEFORE_TEXT}${text}${BEFORE_HTML}${html}${END}`;
}

function contentFields(type: string): string {
  return (
    field('Content-Type', `${type}; charset=utf-8`) +
    field('Content-Transfer-Encoding', 'quoted-printable') +
    '\r\n'
  );
}

const TEXT_FIELDS = contentFields('text/plain');
const HTML_FIELDS = contentFields('text/html');
const BEFORE_TEXT = `${field('Content-Type', `multipart/alternative; boundary="${BOUNDARY}"`)}\r\n--${BOUNDARY}\r\n${TEXT_FIELDS}`;
const BEFORE_HTML = `\r\n--${BOUNDARY}\r\n${HTML_FIELDS}`;
const END = `\r\n--${BOUNDARY}--\r\n`;
