// What makes two triggers the same request: each field as sent, in canonical JSON (RFC 8785), where
// absent equals null. Only a hash of each field is kept, so a replay is recognised, and a different
// request told which fields differ, without storing 32 MB of contexts twice.
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

export type RequestDigest = Record<string, string>;

export function digestRequest(fields: Record<string, unknown>): RequestDigest {
  const digest: RequestDigest = {};
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === null) continue;
    digest[name] = createHash('sha256').update(canonicalize(value)!).digest('hex');
  }
  return digest;
}

/** Names of the fields that differ, in alphabetical order; empty for the same request. */
export function differingFields(a: RequestDigest, b: RequestDigest): string[] {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].filter((name) => a[name] !== b[name]).sort();
}
