// Email addresses: one reading for every way in. Two spellings of one mailbox normalise to the same
// text, which is what contacts and suppressions are keyed by; mail goes to the address as given.
import { domainToASCII } from 'node:url';

export interface Address {
  /** Normalised: NFC, lower case, domain in punycode. The identity of a contact. */
  email: string;
  /** As given, trimmed. The local part keeps its case, which a mail server may care about. */
  given: string;
}

// atext of RFC 5322, section 3.2.3, and what RFC 6531 adds to it (letters, digits and marks beyond
// ASCII, but no space or format character).
const LOCAL = /^[a-z0-9!#$%&'*+/=?^_`{|}~\-\p{L}\p{M}\p{N}\p{S}\p{P}]+$/iu;
const ASCII_SPECIALS = /[()<>[\]:;@\\,"]/u;
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/u;
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/u;

// Nearly every address is of this shape, for which nothing below finds anything else: two in three
// microseconds of an imported row. No "--" in a domain, which may be punycode that is none.
const PLAIN =
  /^(?=[^@]{1,64}@)[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$/i;

/** The address, or a message saying what is wrong with it. */
export function parseAddress(text: string): Address | string {
  if (text.length <= 254 && PLAIN.test(text) && !text.includes('--', text.indexOf('@')))
    return { email: text.toLowerCase(), given: text };
  // Before trimming, which would take a line break at the end for a space.
  if (CONTROLS.test(text)) return 'must not have line breaks or other control characters';
  const given = text.trim().normalize('NFC');
  const at = given.lastIndexOf('@');
  if (at < 1) return 'must be an email address such as name@example.com';
  const local = given.slice(0, at);
  const domain = given.slice(at + 1);
  if (!isLocalPart(local)) return 'has characters before the @ that an email address cannot have';
  // Lower case can be another composition, and longer.
  const folded = local.toLowerCase().normalize('NFC');
  if (Buffer.byteLength(local) > 64 || Buffer.byteLength(folded) > 64)
    return 'must have at most 64 bytes before the @ (RFC 5321)';
  const ascii = asciiDomain(domain);
  if (ascii === undefined) return 'must have a domain such as example.com after the @';
  const email = `${folded}@${ascii}`;
  if (Buffer.byteLength(email) > 254 || Buffer.byteLength(given) > 320) {
    return 'must be at most 254 bytes long (RFC 5321)';
  }
  return { email, given };
}

/** The address in the form an SMTP envelope takes: the local part as given, the domain in punycode. */
export function envelopeAddress(given: string): string {
  const at = given.lastIndexOf('@');
  return `${given.slice(0, at)}@${domainToASCII(given.slice(at + 1))}`;
}

function isLocalPart(local: string): boolean {
  if (ASCII_SPECIALS.test(local) || !LOCAL.test(local)) return false;
  return !local.startsWith('.') && !local.endsWith('.') && !local.includes('..');
}

function asciiDomain(domain: string): string | undefined {
  // domainToASCII also reads percent-encoding and numeric hosts; neither is a mail domain.
  if (/[\u0000-\u002c\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007f]/u.test(domain))
    return undefined;
  const ascii = domainToASCII(domain);
  const labels = ascii.split('.');
  if (ascii.length > 253 || labels.length < 2 || !labels.every((label) => LABEL.test(label))) {
    return undefined;
  }
  return /^\d+$/u.test(labels.at(-1)!) ? undefined : ascii;
}
