// Quoted-printable text (RFC 2045, section 6.7) in pieces that are encoded each by itself and joined
// by counting columns: what is fixed is encoded once for many messages. Whatever the pieces are, the
// joined text is ASCII, its lines end with CRLF and have at most 76 characters, and "=_" is not in it.
import { encode, wrap } from 'nodemailer/lib/qp';
import type { Pattern } from './pattern.ts';

export interface Piece {
  text: string;
  /** Characters of its first line, and of its last. */
  first: number;
  last: number;
}

/** One more character, the "=" of a soft line break, must fit after it. */
const MOST_PER_LINE = 75;

/**
 * Ends of lines become CRLF. Nothing depends on what stands around the piece: white space at its end
 * is encoded, and so is at its start what a line should not start with, a dot or "From ".
 */
export function quote(text: string): Piece {
  if (PLAIN.test(text)) return { text, first: text.length, last: text.length };
  const quoted = wrap(encode(text.replace(/\r\n?|\n/gu, '\r\n')), MOST_PER_LINE - 2).replace(
    UNSAFE_START,
    (start) => (start === '.' ? '=2E' : '=46'),
  );
  const end = quoted.indexOf('\r\n');
  return {
    text: quoted,
    first: end < 0 ? quoted.length : end,
    last: quoted.length - (quoted.lastIndexOf('\n') + 1),
  };
}

/** Stays as it is. */
const PLAIN = /^(?:[!-\-/-<>-EG-~](?:[ -<>-~]{0,70}[!-<>-~])?)?$/u;
/** Relays write ">From " for the second, which would break a DKIM signature. */
const UNSAFE_START = /^(?:\.|F(?=rom |r?o?m?$))/gmu;

/** The pattern's text with its gaps filled, as one quoted-printable text. */
export function joinPieces(
  fixed: readonly Piece[],
  gaps: Pattern['gaps'],
  values: readonly Piece[],
): string {
  let { text, last: column } = fixed[0]!;
  const append = (piece: Piece) => {
    if (column + piece.first > MOST_PER_LINE) {
      text += '=\r\n';
      column = 0;
    }
    column = piece.first === piece.text.length ? column + piece.first : piece.last;
    text += piece.text;
  };
  for (let at = 0; at < gaps.length; at++) {
    append(values[gaps[at]!]!);
    append(fixed[at + 1]!);
  }
  return text;
}
