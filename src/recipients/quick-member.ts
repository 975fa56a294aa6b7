// A shortcut through the check of members for the common case, a flat object of short texts: the full
// check (read-members.ts) takes four times as long, which is half of an import's reading. Whatever is not
// plainly right goes to the full check, so this refuses nothing and says nothing.
import { parseAddress } from '../address.ts';
import { isKey } from '../fields.ts';
import { CONSENTS } from './contacts.ts';
import type { KeyedMember } from './read-members.ts';

const FIELDS = new Set(['source_object_key', 'email', 'name', 'consent', 'metadata']);
/** A control character, NUL among them, or what is near to one in a line of text. */
const DOUBTFUL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\ud800-\udfff]/u;
const MOST_FIELDS = 50;
const LONGEST_TEXT = 200;

/** The member that readMember would give, or undefined where that is to be asked. */
export function quickMember(item: unknown): KeyedMember | undefined {
  if (typeof item !== 'object' || item === null) return undefined;
  for (const name in item) if (!FIELDS.has(name)) return undefined;
  const { source_object_key, email, name, consent, metadata } = item as Record<string, unknown>;
  if (!isPlain(source_object_key) || !isKey(source_object_key) || !isPlain(email)) return undefined;
  const address = parseAddress(email);
  if (typeof address === 'string') return undefined;
  const member: KeyedMember = { source_object_key, email: address };
  if (name !== undefined) {
    if (!isPlain(name) || name === '') return undefined;
    member.name = name;
  }
  if (consent !== undefined) {
    const known = CONSENTS.find((one) => one === consent);
    if (!known) return undefined;
    member.consent = known;
  }
  if (metadata !== undefined) {
    if (!isFlat(metadata)) return undefined;
    member.metadata = metadata;
  }
  return member;
}

function isFlat(metadata: unknown): metadata is Record<string, string> {
  if (typeof metadata !== 'object' || metadata === null || Array.isArray(metadata)) return false;
  let fields = 0;
  for (const name in metadata) {
    fields += 1;
    if (fields > MOST_FIELDS || !isPlain(name) || name === '__proto__') return false;
    if (!isPlain((metadata as Record<string, unknown>)[name])) return false;
  }
  return true;
}

function isPlain(text: unknown): text is string {
  return typeof text === 'string' && text.length <= LONGEST_TEXT && !DOUBTFUL.test(text);
}
