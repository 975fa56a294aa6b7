// A mail server that accepts everything and keeps it in memory, for `dev` and `demo`: real SMTP on
// 127.0.0.1, so that what is shown is what a mail server got. Not for production mail.
import type { AddressInfo } from 'node:net';
import PostalMime, { type Email } from 'postal-mime';
import { SMTPServer } from 'smtp-server';

/** The oldest message goes when there are more. */
const MOST_KEPT = 5000;

export interface KeptMail {
  id: number;
  received_at: Date;
  from: string;
  to: string[];
  raw: Buffer;
}

export interface Sink {
  /** smtp://127.0.0.1:port */
  url: string;
  /** Newest last. */
  mails: readonly KeptMail[];
  /** All that were ever accepted. */
  readonly accepted: number;
  close(): Promise<void>;
}

export async function startSink(port = 0): Promise<Sink> {
  const mails: KeptMail[] = [];
  let accepted = 0;
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS', 'AUTH'],
    disableReverseLookup: true,
    logger: false,
    onData(stream, session, done) {
      const parts: Buffer[] = [];
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('end', () => {
        accepted += 1;
        const { mailFrom, rcptTo } = session.envelope;
        mails.push({
          id: accepted,
          received_at: new Date(),
          from: mailFrom ? mailFrom.address : '',
          to: rcptTo.map((recipient) => recipient.address),
          raw: Buffer.concat(parts),
        });
        if (mails.length > MOST_KEPT) mails.shift();
        done(null, '2.0.0 Ok');
      });
    },
  });
  server.on('error', () => undefined); // of single connections; the server goes on
  await new Promise<void>((resolve, reject) => {
    server.server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const { port: bound } = server.server.address() as AddressInfo;
  return {
    url: `smtp://127.0.0.1:${bound}`,
    mails,
    get accepted() {
      return accepted;
    },
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

export function parseMail({ raw }: KeptMail): Promise<Email> {
  return PostalMime.parse(raw);
}
