// What a member is as callers give it, and reading many: each on its own, so that one bad row rejects
// itself only. The same rules for a single PUT, bulk-upsert, reconcile and import.
import * as v from 'valibot';
import type { FieldError } from '../errors.ts';
import { address, freeData, issuesToErrors, jsonObject, key, line } from '../fields.ts';
import { findFlaws, textFlaw } from '../flaws.ts';
import { CONSENTS } from './contacts.ts';

const fields = {
  email: address(),
  name: v.optional(v.nullable(line(200))),
  consent: v.optional(v.picklist(CONSENTS, `must be one of ${CONSENTS.join(', ')}`)),
  metadata: v.optional(freeData()),
};
export const MemberInput = v.strictObject(fields);
export const KeyedMemberInput = v.pipe(
  jsonObject(), // strictObject alone takes an array for an object without fields
  v.strictObject({ source_object_key: key(), ...fields }),
);
export type KeyedMember = v.InferOutput<typeof KeyedMemberInput>;

/** A member of a bulk call that was not taken, and why; the others were. */
export interface RejectedMember {
  index: number;
  source_object_key: string | null;
  message: string;
}

/**
 * Reads the members of a bulk call: each on its own, so that one bad row rejects itself only. A key
 * or an address that stands twice in one call is rejected the second time.
 */
export function readMembers(input: readonly unknown[]): {
  members: KeyedMember[];
  rejected: RejectedMember[];
} {
  const members: KeyedMember[] = [];
  const rejected: RejectedMember[] = [];
  const keys = new Map<string, number>();
  const emails = new Map<string, number>();
  input.forEach((item, index) => {
    const reject = (message: string) =>
      rejected.push({ index, source_object_key: keyOf(item), message });
    const read = readMember(item);
    if ('message' in read) {
      reject(errorText(read));
      return;
    }
    const { member } = read;
    const twin = keys.get(member.source_object_key) ?? emails.get(member.email.email);
    if (twin !== undefined) {
      const what = keys.has(member.source_object_key) ? 'source_object_key' : 'email';
      reject(`${what}: stands already at index ${twin} of this call`);
      return;
    }
    keys.set(member.source_object_key, index);
    emails.set(member.email.email, index);
    members.push(member);
  });
  return { members, rejected };
}

/** One member, or what is wrong with it first. */
export function readMember(item: unknown): { member: KeyedMember } | FieldError {
  const [flaw] = findFlaws(item);
  if (flaw) return flaw;
  const parsed = v.safeParse(KeyedMemberInput, item);
  return parsed.success ? { member: parsed.output } : issuesToErrors(parsed.issues)[0]!;
}

/** As rejected rows say it. */
export function errorText({ path, message }: FieldError): string {
  return `${path || 'member'}: ${message}`;
}

function keyOf(item: unknown): string | null {
  const given = (item as { source_object_key?: unknown } | null)?.source_object_key;
  return typeof given === 'string' && textFlaw(given) === undefined ? given : null;
}
