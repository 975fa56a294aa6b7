// Links in mails lead to PUBLIC_URL, for as long as somebody keeps the mail: a worker that was started
// without one says so before it sends anything.
import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';

/** Mail goes out all the same: transactional mail has no links of ours. */
export function warnOfPublicUrl({ publicUrl }: Config, log: Logger): void {
  if (publicUrl.startsWith('https://')) return;
  log.warn(
    { public_url: publicUrl },
    'PUBLIC_URL is not an https address: unsubscribe links in mails lead nowhere for recipients, ' +
      'and mail programs offer no one-click unsubscribe (RFC 8058)',
  );
}
