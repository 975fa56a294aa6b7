// An SMTP server over bare sockets that keeps a journal of what it accepted and misbehaves on demand:
// smtp-server cannot drop a connection in the middle of a body, nor accept a message and say nothing.
// Speaks just enough of RFC 5321 for a client that is in order.
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { Journal } from './journal.ts';
import { seededRandom } from './random.ts';

/** Where a fault strikes: before the answer to what the client did. `dot` is the end of the body. */
export type FaultStage =
  'connect' | 'greeting' | 'ehlo' | 'mail' | 'rcpt' | 'data' | 'body' | 'dot';

export type Misbehaviour =
  /** Closes the connection without an answer; after the dot, without having accepted. */
  | 'drop'
  /** After the dot only: accepts the message, and closes the connection without saying so. */
  | 'vanish'
  | { reply: string }
  | { delayMs: number }
  /** Answers a character at a time, with such a pause before each. */
  | { tarpitMs: number };

export interface FaultOptions {
  /** Share of the occasions, 0 to 1; default all of them. */
  rate?: number;
  /** Ends by itself after so many; default never. */
  times?: number;
  /** Only at a recipient (rcpt) or for a message to one (data, body, dot) like this. */
  to?: RegExp;
  /** Only once for each first recipient: the second try finds the server in order. */
  onceEach?: boolean;
}

export interface Fault {
  /** How often it struck. */
  hits: number;
  end(): void;
}

interface Rule extends Fault {
  stage: FaultStage;
  what: Misbehaviour;
  rate: number;
  times: number;
  to: RegExp | undefined;
  /** Recipients it has struck, where that matters. */
  struck: Set<string> | undefined;
}

export class FaultySink {
  readonly journal = new Journal();
  /** Recipients refused for good, by address: their mail may end as failed. */
  readonly refused = new Set<string>();
  url = '';
  port = 0;
  readonly #rules = new Set<Rule>();
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  readonly #random: () => number;

  constructor(seed = 1) {
    this.#random = seededRandom(seed);
    this.#server = createServer({ noDelay: true }, (socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => this.#sockets.delete(socket));
      void new Session(this, socket).start();
    });
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(this.port, '127.0.0.1', resolve));
    this.port = (this.#server.address() as AddressInfo).port;
    this.url = `smtp://127.0.0.1:${this.port}`;
    return this;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** From now on, at this stage. Of several faults of a stage the oldest that fits strikes. */
  misbehave(stage: FaultStage, what: Misbehaviour, options: FaultOptions = {}): Fault {
    const { rate = 1, times = Infinity, to, onceEach = false } = options;
    const struck = onceEach ? new Set<string>() : undefined;
    const end = () => this.#rules.delete(rule);
    const rule: Rule = { stage, what, rate, times, to, struck, hits: 0, end };
    this.#rules.add(rule);
    return rule;
  }

  /** Ends all faults. */
  mend(): void {
    this.#rules.clear();
    this.refused.clear();
  }

  /** The fault that strikes now, if one does. */
  strike(stage: FaultStage, recipients: readonly string[] = []): Misbehaviour | undefined {
    for (const rule of this.#rules) {
      if (rule.stage !== stage) continue;
      if (rule.to && !recipients.some((address) => rule.to!.test(address))) continue;
      if (rule.struck?.has(recipients[0] ?? '')) continue;
      if (this.#random() >= rule.rate) continue;
      rule.struck?.add(recipients[0] ?? '');
      rule.hits += 1;
      if (rule.hits >= rule.times) this.#rules.delete(rule);
      return rule.what;
    }
    return undefined;
  }
}

const END_OF_BODY = '\r\n.\r\n';
const GREETING = '220 mail.example ESMTP';
const EXTENSIONS =
  '250-mail.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 100000000';

/** One connection. What arrives is taken one command after the other, however slow the answers are. */
class Session {
  readonly #sink: FaultySink;
  readonly #socket: Socket;
  #input = '';
  #recipients: string[] = [];
  #inBody = false;
  #searched = 0;
  #busy = false;

  constructor(sink: FaultySink, socket: Socket) {
    this.#sink = sink;
    this.#socket = socket;
  }

  async start(): Promise<void> {
    if (this.#sink.strike('connect')) {
      this.#socket.resetAndDestroy();
      return;
    }
    this.#busy = true;
    this.#socket.on('data', (part) => {
      this.#input += part.toString('latin1');
      void this.#work();
    });
    await this.#answer('greeting', GREETING);
    this.#busy = false;
    await this.#work();
  }

  async #work(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    while (!this.#socket.destroyed && (this.#inBody ? await this.#body() : await this.#command()));
    this.#busy = false;
  }

  /** Takes one command off the input; false where none is complete. */
  async #command(): Promise<boolean> {
    const end = this.#input.indexOf('\r\n');
    if (end < 0) return false;
    const line = this.#input.slice(0, end);
    this.#input = this.#input.slice(end + 2);
    const verb = line.split(/[ :]/u)[0]!.toUpperCase();
    if (verb === 'EHLO' || verb === 'HELO') await this.#answer('ehlo', EXTENSIONS);
    else if (verb === 'MAIL') {
      this.#recipients = [];
      await this.#answer('mail', '250 2.1.0 Ok');
    } else if (verb === 'RCPT') await this.#recipient(/<([^>]*)>/u.exec(line)?.[1] ?? '');
    else if (verb === 'DATA') {
      const reply = await this.#answer('data', '354 go on', this.#recipients);
      this.#inBody = reply.startsWith('354');
    } else if (verb === 'QUIT') this.#socket.end('221 2.0.0 Bye\r\n');
    else this.#socket.write('250 2.0.0 Ok\r\n');
    return true;
  }

  async #recipient(address: string): Promise<void> {
    const reply = await this.#answer('rcpt', '250 2.1.5 Ok', [address]);
    if (reply.startsWith('2')) this.#recipients.push(address);
    if (reply.startsWith('5')) this.#sink.refused.add(address);
  }

  async #body(): Promise<boolean> {
    // Each body is asked about once, when its first byte is here.
    if (this.#searched === 0 && this.#input !== '') {
      if (this.#sink.strike('body', this.#recipients) === 'drop') this.#socket.destroy();
    }
    const end = this.#input.indexOf(END_OF_BODY, Math.max(0, this.#searched - END_OF_BODY.length));
    if (end < 0) {
      this.#searched = this.#input.length;
      return false;
    }
    const raw = this.#input.slice(0, end);
    this.#input = this.#input.slice(end + END_OF_BODY.length);
    this.#inBody = false;
    this.#searched = 0;
    if (!this.#socket.destroyed) await this.#accept(raw);
    return true;
  }

  async #accept(raw: string): Promise<void> {
    const what = this.#sink.strike('dot', this.#recipients);
    const refusal = typeof what === 'object' && 'reply' in what ? what.reply : undefined;
    if (what !== 'drop' && !refusal) this.#sink.journal.add(raw, this.#recipients);
    if (refusal?.startsWith('5'))
      for (const address of this.#recipients) this.#sink.refused.add(address);
    await this.#act(what, '250 2.0.0 Ok: queued');
  }

  /** What was answered; empty where the connection was closed instead. */
  #answer(stage: FaultStage, usual: string, recipients?: readonly string[]): Promise<string> {
    return this.#act(this.#sink.strike(stage, recipients), usual);
  }

  async #act(what: Misbehaviour | undefined, usual: string): Promise<string> {
    if (what === 'drop' || what === 'vanish') {
      this.#socket.destroy();
      return '';
    }
    if (what && 'tarpitMs' in what) {
      for (const letter of `${usual}\r\n`) {
        await pause(what.tarpitMs);
        if (this.#socket.destroyed) return '';
        this.#socket.write(letter);
      }
      return usual;
    }
    if (what && 'delayMs' in what) await pause(what.delayMs);
    const reply = what && 'reply' in what ? what.reply : usual;
    if (this.#socket.writable) this.#socket.write(`${reply}\r\n`);
    // RFC 5321, section 3.8: 421 closes the channel.
    if (reply.startsWith('421')) this.#socket.end();
    return reply;
  }
}
