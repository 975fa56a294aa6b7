// Whether a message is signed: RFC 6376, sections 3.4.2, 3.4.4 and 3.7, relaxed, written down here once
// more. Messages are strings with a character for each byte ("latin1").
import { createHash, createPublicKey, createVerify, type KeyObject } from 'node:crypto';

/** Body and fields are those the key signed. */
export function isSignedBy(privateKey: KeyObject, raw: string): boolean {
  const tags = dkimTags(raw);
  if (tags.bh !== bodyHash(raw)) return false;
  const verify = createVerify('rsa-sha256').update(signedHeaders(raw, tags.h!), 'latin1');
  return verify.verify(createPublicKey(privateKey), tags.b!, 'base64');
}

export function fieldsOf(raw: string): string[] {
  return raw.slice(0, raw.indexOf('\r\n\r\n')).split(/\r\n(?![ \t])/u);
}

export function dkimTags(raw: string): Record<string, string> {
  const field = fieldsOf(raw).find((one) => /^dkim-signature:/iu.test(one))!;
  const value = field.slice(field.indexOf(':') + 1);
  return Object.fromEntries(
    value.split(';').map((tag) => {
      const [name, ...rest] = tag.split('=');
      return [name!.trim(), rest.join('=').replace(/\s+/gu, '')];
    }),
  );
}

function bodyHash(raw: string): string {
  const lines = raw.slice(raw.indexOf('\r\n\r\n') + 4).split('\r\n');
  const relaxed = lines.map((line) => line.replace(/[ \t]+/gu, ' ').replace(/ $/u, ''));
  const body = `${relaxed.join('\r\n').replace(/(\r\n)*$/u, '')}\r\n`;
  return createHash('sha256').update(body, 'latin1').digest('base64');
}

function relaxedField(field: string): string {
  const at = field.indexOf(':');
  const value = field
    .slice(at + 1)
    .replace(/\s+/gu, ' ')
    .trim();
  return `${field.slice(0, at).trim().toLowerCase()}:${value}`;
}

function signedHeaders(raw: string, names: string): string {
  const fields = fieldsOf(raw);
  const signature = fields.find((one) => /^dkim-signature:/iu.test(one))!;
  const signed = names
    .split(':')
    .map((name) => fields.findLast((one) => one.toLowerCase().startsWith(`${name}:`))!);
  const unsigned = signature.replace(/([;\s]b=)[^;]*$/u, '$1');
  return [...signed, unsigned].map(relaxedField).join('\r\n');
}
