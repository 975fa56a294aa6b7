// A real SMTP server for tests: keeps every message it accepted, and can be told how to answer.
import type { AddressInfo } from 'node:net';
import PostalMime, { type Email } from 'postal-mime';
import { SMTPServer } from 'smtp-server';

export interface Accepted {
  from: string;
  to: string[];
  raw: Buffer;
}

/** A negative reply: `new Reply(550, '5.1.1 no such user')`. */
export class Reply extends Error {
  readonly responseCode: number;

  constructor(responseCode: number, message: string) {
    super(message);
    this.responseCode = responseCode;
  }
}

export class SmtpSink {
  readonly accepted: Accepted[] = [];
  /** Asked for each login, where the sink has one; a Reply refuses it. */
  onLogin: (user: string) => Reply | undefined = () => undefined;
  /** Asked at MAIL FROM; a Reply refuses it. */
  onSender: (address: string) => Reply | undefined = () => undefined;
  /** Asked for each recipient; a Reply refuses it. */
  onRecipient: (address: string) => Reply | undefined = () => undefined;
  /** Asked after the body; awaited before the answer, so a test can hold a message here. */
  onBody: (message: Accepted) => Promise<Reply | undefined> | Reply | undefined = () => undefined;
  /** False drops the bodies, for runs of many thousands. */
  keepsBodies = true;
  url = '';
  readonly #server: SMTPServer;

  constructor({ login = false } = {}) {
    this.#server = new SMTPServer({
      authOptional: true,
      allowInsecureAuth: true,
      disabledCommands: login ? ['STARTTLS'] : ['STARTTLS', 'AUTH'],
      disableReverseLookup: true,
      logger: false,
      onAuth: ({ username = '' }, _session, done) => {
        const refusal = this.onLogin(username);
        if (refusal) done(refusal);
        else done(null, { user: username });
      },
      onMailFrom: ({ address }, _session, done) => done(this.onSender(address)),
      onRcptTo: ({ address }, _session, done) => done(this.onRecipient(address)),
      onData: (stream, { envelope }, done) => {
        const parts: Buffer[] = [];
        stream.on('data', (part: Buffer) => parts.push(part));
        stream.on('end', () => {
          const message = {
            from: envelope.mailFrom ? envelope.mailFrom.address : '',
            to: envelope.rcptTo.map((recipient) => recipient.address),
            raw: Buffer.concat(parts),
          };
          void Promise.resolve(this.onBody(message)).then((refusal) => {
            if (refusal) return done(refusal);
            this.accepted.push(this.keepsBodies ? message : { ...message, raw: Buffer.alloc(0) });
            done(null, '2.0.0 Ok');
          });
        });
      },
    });
    this.#server.on('error', () => undefined);
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.url = `smtp://127.0.0.1:${(this.#server.server.address() as AddressInfo).port}`;
    return this;
  }

  stop(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  /** Accepted messages per recipient address. */
  countByRecipient(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const { to } of this.accepted)
      for (const address of to) counts.set(address, (counts.get(address) ?? 0) + 1);
    return counts;
  }

  /** The one message an address got, parsed. */
  async mailTo(address: string): Promise<Email> {
    const [message, ...more] = this.accepted.filter((one) => one.to.includes(address));
    if (!message || more.length > 0)
      throw new Error(`${address} got ${message ? more.length + 1 : 0} messages, not one`);
    return PostalMime.parse(message.raw);
  }
}
