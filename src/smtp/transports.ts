// The mail servers of one lane: which of them takes the next messages. A caller reserves places, each a
// free connection of one mail server, claims as many messages, and sends one per place. Left out are
// mail servers that do not serve the sender, that are stopped (breakers), or that got all they may have
// this second; where a message finds none, it is told when to come back, and nothing waits in a slot.
import { envelopeAddress } from '../address.ts';
import type { Database } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import type { BreakerKey, Breakers, BreakerState } from './breakers.ts';
import { sign } from './dkim.ts';
import { DomainGates } from './domain-gates.ts';
import { returnTokens, takeTokens } from './rate-limit.ts';
import {
  domainOf,
  isUntouched,
  tookLogin,
  tookSender,
  troublesOf,
  type Signal,
  type Trouble,
} from './signal.ts';
import { parseSmtpUrl, SmtpPool } from './transport.ts';
import { serves, type TransportConfig } from './transport-config.ts';

export interface OutgoingMail {
  /** As the sender has it: the From address and the envelope's. */
  sender: string;
  to: string[];
  raw: Buffer;
}

export interface Sent {
  signal: Signal;
  /** Until somebody would take mail of this sender again; for what was held. */
  waitSeconds: number;
}

/** Which senders' mail may go over a reservation that was made for no sender in particular. */
export interface SenderRule {
  /** With `*` for any characters; undefined takes all. */
  patterns?: readonly string[];
  /** Lower case. */
  except: readonly string[];
}

export interface Reservation {
  /** None where nobody takes mail now. */
  places: Place[];
  rule: SenderRule;
  /** For `except`, once nothing more was found for it. */
  choice: string;
  /** Without places: until it is worth asking again, where something is stopped or used up. */
  waitSeconds?: number;
}

/** One mail server as this process sees it, for all lanes. */
export interface TransportState {
  config: TransportConfig;
  domains: DomainGates | undefined;
  /** No connection could be made: others are asked first. In monotonic milliseconds, as the next. */
  awayUntil: number;
  /** The second's messages are used up. */
  emptyUntil: number;
}

export function stateOfTransports(configs: readonly TransportConfig[]): TransportState[] {
  return configs.map((config) => ({
    config,
    domains: config.perDomainConnections ? new DomainGates(config.perDomainConnections) : undefined,
    awayUntil: -Infinity,
    emptyUntil: -Infinity,
  }));
}

interface Channel {
  state: TransportState;
  pool: SmtpPool;
  /** Messages it got, divided by its weight: the least is next. */
  given: number;
  lastFreedAt: number;
}

interface Choice {
  channel: Channel;
  /** Breakers that are tried by a single message. */
  probes: BreakerKey[];
  rule: SenderRule;
  name: string;
}

/** A place in a pool, with what it took. */
interface Held {
  channel: Channel;
  probes: BreakerKey[];
  /** Handed to the mail server: it has cost a token. */
  spent: boolean;
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

const AWAY_MS = 5000;
/** A mail server whose places are all taken is waited for this long, for the sake of weights. */
const STUCK_MS = 1000;
/** Messages by which one that was left out may be behind. */
const LARGEST_DEBT = 100;
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
      const choice = this.#next(left);
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

  /** What could take mail of the sender now, and else how long that will be so. */
  #choices(sender: string | undefined): { open: Choice[]; waitSeconds?: number } {
    const open: Choice[] = [];
    const waits: number[] = [];
    for (const channel of this.#channels) {
      const { config, emptyUntil } = channel.state;
      const transport = config.name;
      if (sender !== undefined && !serves(config, sender)) continue;
      const empty = (emptyUntil - performance.now()) / 1000;
      const keys = [{ transport, sender: '', domain: '' }];
      if (sender !== undefined) keys.push({ transport, sender, domain: '' });
      const found = this.#ask(keys);
      if ('waitSeconds' in found || empty > 0) {
        waits.push(Math.max('waitSeconds' in found ? found.waitSeconds : 0, empty));
        continue;
      }
      const stopped = sender === undefined ? this.#breakers.sendersStoppedAt(transport) : [];
      const rule = { ...(config.senders && { patterns: config.senders }), except: stopped };
      open.push({ channel, probes: found.probes, rule, name: transport });
      if (found.probes.length > 0) continue;
      for (const one of stopped) {
        const ofSender = this.#ask([{ transport, sender: one, domain: '' }]);
        if ('waitSeconds' in ofSender) waits.push(ofSender.waitSeconds);
        else {
          const only = { patterns: [one], except: [] };
          open.push({ channel, probes: ofSender.probes, rule: only, name: `${transport} ${one}` });
        }
      }
    }
    return waits.length > 0 ? { open, waitSeconds: Math.min(...waits) } : { open };
  }

  /** The longest wait where one is stopped, else those that want a probe. */
  #ask(keys: BreakerKey[]): { probes: BreakerKey[] } | { waitSeconds: number } {
    const states = keys.map((key) => ({ key, state: this.#breakers.stateOf(key) }));
    const waits = states.flatMap(({ state }) =>
      state.kind === 'stopped' ? [state.waitSeconds] : [],
    );
    if (waits.length > 0) return { waitSeconds: Math.max(...waits) };
    return { probes: states.filter(({ state }) => state.kind === 'probe').map(({ key }) => key) };
  }

  /**
   * A probe first; else the one that got least for its weight, also where that means to wait for its
   * next free place: weights would otherwise mean nothing while everything is busy.
   */
  #next(choices: Choice[]): Choice | undefined {
    const now = performance.now();
    const near = choices.filter(({ channel }) => channel.state.awayUntil <= now);
    const candidates = near.length > 0 ? near : choices;
    const probe = candidates.find(
      ({ probes, channel }) => probes.length > 0 && channel.pool.free > 0,
    );
    if (probe) return probe;
    const most = Math.max(...candidates.map(({ channel }) => channel.given));
    for (const { channel } of candidates)
      channel.given = Math.max(channel.given, most - LARGEST_DEBT / channel.state.config.weight);
    const sorted = candidates.toSorted(
      ({ channel: a }, { channel: b }) =>
        a.given - b.given || b.state.config.weight - a.state.config.weight,
    );
    for (const choice of sorted) {
      if (choice.channel.pool.free > 0) return choice;
      if (now - choice.channel.lastFreedAt < STUCK_MS) return undefined;
    }
    return undefined;
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
  async sendOver(held: Held, { sender, to, raw }: OutgoingMail): Promise<Sent> {
    const { channel, probes } = held;
    const { config, domains: gates } = channel.state;
    const domains = [...new Set(to.map(domainOf))];
    const entered = gates?.enter(domains);
    if (entered && 'waitSeconds' in entered) {
      const text = `no more than ${config.perDomainConnections} at once to ${domains.join(', ')}`;
      return withheld('domain_busy', text, entered.waitSeconds);
    }
    try {
      const keys = domains.map((domain) => ({ transport: config.name, sender: '', domain }));
      const found = this.#ask(keys);
      const slow = `${config.name} is slow for ${domains.join(', ')}`;
      if ('waitSeconds' in found) return withheld('slowed', slow, found.waitSeconds);
      if (found.probes.length > 0) {
        if (!(await this.#breakers.takeProbe(found.probes)))
          return withheld('slowed', slow, waitOf(this.#breakers.stateOf(found.probes[0]!)));
        probes.push(...found.probes);
      }
      const signed = config.dkim ? await sign(raw, config.dkim) : raw;
      held.spent = true;
      const envelope = { from: envelopeAddress(sender), to };
      const signal = await channel.pool.send(envelope, signed, { fresh: probes.length > 0 });
      if (signal.kind === 'lost' && isUntouched(signal))
        channel.state.awayUntil = performance.now() + AWAY_MS;
      await this.#learn(channel, probes, sender.toLowerCase(), signal);
      return { signal, waitSeconds: this.#waitFor(sender.toLowerCase()) };
    } catch (error) {
      // The database, or the signer; nothing was handed over.
      this.#log.warn({ error: (error as Error).message, transport: config.name }, 'not sent');
      return withheld('slowed', 'not sent', 1);
    } finally {
      entered?.leave();
    }
  }

  #waitFor(sender: string): number {
    const { open, waitSeconds = UNSERVED_SECONDS } = this.#choices(sender);
    return open.length > 0 ? 0 : waitSeconds;
  }

  /** Opens, closes and opens again what the signal tells of. What cannot be written is met again. */
  async #learn(
    { state: { config } }: Channel,
    probes: readonly BreakerKey[],
    sender: string,
    signal: Signal,
  ): Promise<void> {
    const transport = config.name;
    const troubles = new Map(
      troublesOf(signal).map((trouble) => {
        const key = keyOf(trouble, transport, sender);
        return [JSON.stringify(key), { key, trouble }] as const;
      }),
    );
    try {
      for (const { key, trouble } of troubles.values())
        await this.#breakers.open(key, trouble.reason, trouble.reply);
      for (const key of probes) {
        if (troubles.has(JSON.stringify(key))) continue;
        const works = key.sender || key.domain ? tookSender(signal) : tookLogin(signal);
        if (works) await this.#breakers.close(key);
        else await this.#breakers.openAgain(key, replyOf(signal));
      }
    } catch (error) {
      this.#log.warn({ error: (error as Error).message, transport }, 'breaker not written');
    }
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

function share(most: number, { channel }: Choice, choices: Choice[]): number {
  const sum = choices.reduce((total, one) => total + one.channel.state.config.weight, 0);
  return Math.ceil((most * channel.state.config.weight) / sum);
}

function withheld(reason: 'domain_busy' | 'slowed', text: string, waitSeconds: number): Sent {
  return { signal: { kind: 'withheld', reason, text }, waitSeconds };
}

function waitOf(state: BreakerState): number {
  return state.kind === 'stopped' ? state.waitSeconds : 0;
}

function keyOf(trouble: Trouble, transport: string, sender: string): BreakerKey {
  return {
    transport,
    sender: trouble.scope === 'sender' ? sender : '',
    domain: trouble.scope === 'domain' ? trouble.domain : '',
  };
}

function replyOf(signal: Signal): string {
  if (signal.kind === 'lost') return signal.error;
  if (signal.kind === 'withheld') return signal.text;
  return signal.kind === 'accepted' ? signal.reply : signal.reply.text;
}
