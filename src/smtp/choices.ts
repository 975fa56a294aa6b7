// Which mail server takes the next messages: of those that serve the sender, are not stopped (breakers) and
// have something left of this second's messages, the one that got least for its weight. Nothing here
// waits or talks to anybody.
import { DomainGates } from './domain-gates.ts';
import type { BreakerKey, Breakers } from './breakers.ts';
import type { SmtpPool } from './transport.ts';
import { serves, type TransportConfig } from './transport-config.ts';

/** A mail server whose places are all taken is waited for this long, for the sake of weights. */
export const STUCK_MS = 1000;
/** Messages by which one that was left out may be behind. */
const LARGEST_DEBT = 100;

/** Which senders' mail may go over a reservation that was made for no sender in particular. */
export interface SenderRule {
  /** With `*` for any characters; undefined takes all. */
  patterns?: readonly string[];
  /** Lower case. */
  except: readonly string[];
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

export interface Channel {
  state: TransportState;
  pool: SmtpPool;
  /** Messages it got, divided by its weight: the least is next. */
  given: number;
  lastFreedAt: number;
}

export interface Choice {
  channel: Channel;
  /** Breakers that are tried by a single message. */
  probes: BreakerKey[];
  rule: SenderRule;
  name: string;
}

/** What could take mail of the sender now, and else how long that will be so. */
export function choicesFor(
  breakers: Breakers,
  channels: readonly Channel[],
  sender: string | undefined,
): { open: Choice[]; waitSeconds?: number } {
  const open: Choice[] = [];
  const waits: number[] = [];
  for (const channel of channels) {
    const { config, emptyUntil } = channel.state;
    const transport = config.name;
    if (sender !== undefined && !serves(config, sender)) continue;
    const empty = (emptyUntil - performance.now()) / 1000;
    const keys = [{ transport, sender: '', domain: '' }];
    if (sender !== undefined) keys.push({ transport, sender, domain: '' });
    const found = askBreakers(breakers, keys);
    if ('waitSeconds' in found || empty > 0) {
      waits.push(Math.max('waitSeconds' in found ? found.waitSeconds : 0, empty));
      continue;
    }
    const stopped = sender === undefined ? breakers.sendersStoppedAt(transport) : [];
    const rule = { ...(config.senders && { patterns: config.senders }), except: stopped };
    open.push({ channel, probes: found.probes, rule, name: transport });
    if (found.probes.length > 0) continue;
    for (const one of stopped) {
      const ofSender = askBreakers(breakers, [{ transport, sender: one, domain: '' }]);
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
export function askBreakers(
  breakers: Breakers,
  keys: readonly BreakerKey[],
): { probes: BreakerKey[] } | { waitSeconds: number } {
  const states = keys.map((key) => ({ key, state: breakers.stateOf(key) }));
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
export function nextChoice(choices: readonly Choice[]): Choice | undefined {
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

/** How many of `most` messages one of the choices gets. */
export function share(most: number, { channel }: Choice, choices: readonly Choice[]): number {
  const sum = choices.reduce((total, one) => total + one.channel.state.config.weight, 0);
  return Math.ceil((most * channel.state.config.weight) / sum);
}
