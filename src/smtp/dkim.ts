// Signs a composed message (RFC 6376). nodemailer's default list of fields leaves List-Unsubscribe-Post
// out, which RFC 8058, section 4, wants covered for one-click unsubscription; of this list, those
// the message has are signed.
import { buffer } from 'node:stream/consumers';
import DKIM from 'nodemailer/lib/dkim';
import type { DkimKey } from './transport-config.ts';

const FIELDS = [
  'From',
  'To',
  'Cc',
  'Subject',
  'Date',
  'Message-ID',
  'MIME-Version',
  'Content-Type',
  'Content-Transfer-Encoding',
  'Reply-To',
  'List-Unsubscribe',
  'List-Unsubscribe-Post',
  'List-Id',
].join(':');

/** The message with a DKIM-Signature in front. The key was checked when the configuration was read. */
export function sign(raw: Buffer, { domain, selector, privateKey }: DkimKey): Promise<Buffer> {
  const signer = new DKIM({
    domainName: domain,
    keySelector: selector,
    privateKey,
    headerFieldNames: FIELDS,
  });
  return buffer(signer.sign(raw));
}
