// The links in mails by which a recipient unsubscribes or confirms: a signed token says what for, whose
// mail, who and which list, in numbers only, so it is no personal data. Nothing is stored per link; a
// token never expires and survives restarts, as the key lives in the database. A token that is not ours
// says nothing: reading it gives undefined, whatever is wrong with it.
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Database } from '../database/connect.ts';

export type LinkPurpose = 'unsubscribe' | 'confirm';

/** What a link is about. */
export interface LinkRef {
  purpose: LinkPurpose;
  client_id: number;
  contact_id: number;
  /** Null where it is about everything the client sends. */
  list_id: number | null;
}

/** What it takes to put links into mails. */
export interface Linker {
  key: Buffer;
  /** Without a trailing slash. */
  baseUrl: string;
  /** The mailbox for those who unsubscribe by mail. */
  mailto: string | undefined;
}

const PURPOSES: Record<LinkPurpose, number> = { unsubscribe: 1, confirm: 2 };

// purpose 1, client 4, contact 6, list 6 (0: none), then 16 bytes of the HMAC: 33 bytes are 44
// characters of base64url without a bit to spare, so a token has one spelling only.
const REF_BYTES = 17;
const TOKEN = /^[A-Za-z0-9_-]{44}$/u;

export async function readLinkKey(db: Database): Promise<Buffer> {
  const { secret } = await db
    .selectFrom('signing_keys')
    .select('secret')
    .where('purpose', '=', 'recipient_links')
    .executeTakeFirstOrThrow();
  return secret;
}

export function signToken(
  key: Buffer,
  { purpose, client_id, contact_id, list_id }: LinkRef,
): string {
  const ref = Buffer.alloc(REF_BYTES);
  ref.writeUInt8(PURPOSES[purpose], 0);
  ref.writeUInt32BE(client_id, 1);
  ref.writeUIntBE(contact_id, 5, 6);
  ref.writeUIntBE(list_id ?? 0, 11, 6);
  return Buffer.concat([ref, signatureOf(key, ref)]).toString('base64url');
}

/** Undefined where the token was not signed by this key, or for another purpose. */
export function readToken(key: Buffer, purpose: LinkPurpose, token: string): LinkRef | undefined {
  if (!TOKEN.test(token)) return undefined;
  const bytes = Buffer.from(token, 'base64url');
  const ref = bytes.subarray(0, REF_BYTES);
  if (!timingSafeEqual(bytes.subarray(REF_BYTES), signatureOf(key, ref))) return undefined;
  if (ref.readUInt8(0) !== PURPOSES[purpose]) return undefined;
  return {
    purpose,
    client_id: ref.readUInt32BE(1),
    contact_id: ref.readUIntBE(5, 6),
    list_id: ref.readUIntBE(11, 6) || null,
  };
}

/** The first 16 bytes: forging one takes 2^127 tries. */
function signatureOf(key: Buffer, ref: Buffer): Buffer {
  return createHmac('sha256', key).update(ref).digest().subarray(0, 16);
}

export function linkTo({ key, baseUrl }: Linker, ref: LinkRef): string {
  return `${baseUrl}/${ref.purpose}/${signToken(key, ref)}`;
}

/**
 * Values of List-Unsubscribe (RFC 2369), the link first: one-click (RFC 8058) needs one over https. The
 * subject of the mail names the token, so whoever reads the mailbox can open the page for the sender.
 */
export function unsubscribeHeader(linker: Linker, ref: LinkRef): string[] {
  const { mailto } = linker;
  const values = [linkTo(linker, ref)];
  if (mailto !== undefined) {
    const address = encodeURIComponent(mailto).replace('%40', '@');
    values.push(`mailto:${address}?subject=unsubscribe%20${signToken(linker.key, ref)}`);
  }
  return values;
}
