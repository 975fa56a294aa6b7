// The mail servers of one lane: which of them takes the next messages. A caller reserves places, each a
// free connection of one mail server, claims as many messages, and sends one per place. Left out are
// mail servers that do not serve the sender, that are stopped (breakers), or that got all they may have
// this second; where a message finds none, it is told when to come back, and nothing waits in a slot.
import type { Database } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import type { Breakers } from './breakers.ts';
import {
  choicesFor,
  nextChoice,
  share,
  STUCK_MS,
  type Channel,
  type Choice,
  type SenderRule,
  type TransportState,
} from './choices.ts';
import { returnTokens, takeTokens } from './rate-limit.ts';
import { sendOver, type Held, type OutgoingMail, type Sent } from './send-over.ts';
import { isUntouched } from './signal.ts';
import { parseSmtpUrl, SmtpPool } from './transport.ts';
import type { TransportConfig } from './transport-config.ts';

export interface Reservation {
  /** None where nobody takes mail now. */
  places: Place[];
  rule: SenderRule;
  /** For `except`, once nothing more was found for it. */
  choice: string;
  /** Without places: until it is worth asking again, where something is stopped or used up. */
  waitSeconds?: number;
}

export interface TransportsOptions {
  db: Database;
  log: Logger;
  breakers: Breakers;
  states: readonly TransportState[];
  /** Connections to a mail server of this lane. */
  connections: (config: TransportConfig) => number;
  idleMs?: number;
}

/** Nobody is configured for a sender: the configuration may change. */
const UNSERVED_SECONDS = 60;

export class Transports {
  readonly #db: Database;
  readonly #log: Logger;
  readonly #breakers: Breakers;
  readonly #channels: Channel[];
  /** Places of all mail servers together. */
  readonly size: number;
  #waiting: (() => void)[] = [];
  readonly #givingBack = new Set<Promise<void>>();
  #closed = false;

  constructor({ db, log, breakers, states, connections, idleMs }: TransportsOptions) {
    this.#db = db;
    this.#log = log;
    this.#breakers = breakers;
    this.#channels = states.map((state) => {
      const options = { ...parseSmtpUrl(state.config.url), tls: state.config.tls };
      const pool = new SmtpPool(options, connections(state.config), log, idleMs);
      return { state, pool, given: 0, lastFreedAt: performance.now() };
    });
    this.size = this.#channels.reduce((sum, { pool }) => sum + pool.size, 0);
  }

  /**
   * Takes up to `most` places at one mail server, and tokens of its rate limit; waits only for places.
   * Without `sender` for whoever the rule of the reservation names.
   */
  async reserve({
    sender,
    most,
    except = new Set(),
  }: {
    sender?: string;
    most: number;
    except?: ReadonlySet<string>;
  }): Promise<Reservation> {
    const nobody = { places: [], rule: { except: [] }, choice: '' };
    while (!this.#closed) {
      await this.#breakers.refresh();
      const { open, waitSeconds } = this.#choices(sender?.toLowerCase());
      const left = open.filter((choice) => !except.has(choice.name));
      if (left.length === 0) {
        if (open.length === 0 && sender !== undefined && waitSeconds === undefined)
          this.#log.warn({ sender }, 'no mail server is configured for this sender');
        const wait = waitSeconds ?? (open.length === 0 ? UNSERVED_SECONDS : undefined);
        return wait === undefined ? nobody : { ...nobody, waitSeconds: wait };
      }
      const choice = nextChoice(left);
      if (!choice) {
        await this.#untilReleased();
        continue;
      }
      const places = await this.#take(
        choice,
        choice.probes.length > 0 ? 1 : share(most, choice, left),
      );
      if (places.length > 0) return { places, rule: choice.rule, choice: choice.name };
    }
    return nobody;
  }

  /** Whose mail could go now. */
  openRules(): SenderRule[] {
    return this.#choices(undefined).open.map(({ rule }) => rule);
  }

  #choices(sender: string | undefined): ReturnType<typeof choicesFor> {
    return choicesFor(this.#breakers, this.#channels, sender);
  }

  async #take({ channel, probes }: Choice, most: number): Promise<Place[]> {
    const { pool, state } = channel;
    const { name, messagesPerSecond, weight } = state.config;
    let places = pool.take(most);
    channel.given += places / weight;
    const giveBack = (unused: number) => {
      channel.given -= unused / weight;
      this.#free(channel, unused);
      places -= unused;
    };
    try {
      if (probes.length > 0 && !(await this.#breakers.takeProbe(probes))) {
        giveBack(places);
      } else if (messagesPerSecond && places > 0) {
        const { taken, waitSeconds } = await takeTokens(this.#db, name, messagesPerSecond, places);
        if (taken < places) state.emptyUntil = performance.now() + waitSeconds * 1000;
        giveBack(places - taken);
        if (taken === 0 && probes.length > 0) await this.#breakers.returnProbe(probes);
      }
    } catch (error) {
      giveBack(places);
      throw error;
    }
    return Array.from({ length: places }, () => new Place(this, { channel, probes, spent: false }));
  }

  #free(channel: Channel, places: number): void {
    channel.pool.release(places);
    channel.lastFreedAt = performance.now();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #untilReleased(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, STUCK_MS);
    this.#waiting.push(resolve);
    await promise;
    clearTimeout(timer);
  }

  /** Gives places back, and what those that met no mail server had taken. */
  release(held: readonly Held[]): void {
    const unspent = Map.groupBy(
      held.filter((one) => !one.spent),
      (one) => one.channel,
    );
    for (const { channel } of held) this.#free(channel, 1);
    for (const [channel, places] of unspent) {
      const { name, messagesPerSecond, weight } = channel.state.config;
      channel.given -= places.length / weight;
      const probes = places.flatMap((place) => place.probes);
      if (probes.length > 0) this.#giveBack(this.#breakers.returnProbe(probes));
      if (messagesPerSecond)
        this.#giveBack(returnTokens(this.#db, name, messagesPerSecond, places.length));
    }
  }

  /** A lost probe comes back by itself after a while, a lost token is a message less this second. */
  #giveBack(work: Promise<void>): void {
    const done = work
      .catch((error: Error) => this.#log.warn({ error: error.message }, 'not given back'))
      .finally(() => this.#givingBack.delete(done));
    this.#givingBack.add(done);
  }

  /** Sends over one mail server. Never throws. */
  sendOver(held: Held, mail: OutgoingMail): Promise<Sent> {
    const waitFor = (sender: string) => {
      const { open, waitSeconds = UNSERVED_SECONDS } = this.#choices(sender);
      return open.length > 0 ? 0 : waitSeconds;
    };
    return sendOver({ log: this.#log, breakers: this.#breakers, waitFor }, held, mail);
  }

  /** Cuts what is in hand: of a message that was handed over the outcome is unknown. */
  abort(): void {
    this.#closed = true;
    for (const { pool } of this.#channels) pool.abort();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Ends idle connections; those in use end with their message. Nobody gets a place any more. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { pool } of this.#channels) pool.close();
    for (const wake of this.#waiting.splice(0)) wake();
    await Promise.all(this.#givingBack);
  }
}

/** A free connection of a mail server, for one message. To be released, used or not. */
export class Place {
  readonly #transports: Transports;
  #held: Held | undefined;

  constructor(transports: Transports, held: Held) {
    this.#transports = transports;
    this.#held = held;
  }

  /**
   * Sends the message; where the mail server saw nothing of it, another one gets it in the same
   * attempt. Never throws.
   */
  async send(mail: OutgoingMail): Promise<Sent> {
    const tried = new Set<string>();
    for (;;) {
      const held = this.#held!;
      tried.add(held.channel.state.config.name);
      const sent = await this.#transports.sendOver(held, mail);
      if (!isUntouched(sent.signal)) return sent;
      // Before another place is waited for: two that wait for each other's would wait for ever.
      this.release();
      const { sender } = mail;
      const next = await this.#transports
        .reserve({ sender, most: 1, except: tried })
        .catch(() => undefined);
      const place = next?.places[0];
      if (!place) return sent;
      this.#held = place.#held;
    }
  }

  /**
   * For one more message of the sender: gives this place back and takes the next free one, so that the
   * message is counted like any other. Undefined where it has one, else the seconds until somebody
   * would take mail of the sender. @throws where the database fails
   */
  async next(sender: string): Promise<{ waitSeconds: number } | undefined> {
    // Before another place is waited for: two that wait for each other's would wait for ever.
    this.release();
    const { places, waitSeconds = 0 } = await this.#transports.reserve({ sender, most: 1 });
    const place = places[0];
    if (!place) return { waitSeconds };
    this.#held = place.#held;
    return undefined;
  }

  /** Repeatable. */
  release(): void {
    if (this.#held) this.#transports.release([this.#held]);
    this.#held = undefined;
  }

  static releaseAll(places: readonly Place[]): void {
    const all = Map.groupBy(places, (place) => place.#transports);
    for (const [transports, some] of all) {
      transports.release(some.flatMap((place) => place.#held ?? []));
      for (const place of some) place.#held = undefined;
    }
  }
}
