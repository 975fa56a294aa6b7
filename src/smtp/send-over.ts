// One message over one mail server: a recipient domain's cap, DKIM, the conversation, and what the
// breakers learn from it. Expected failures are values, never exceptions.
import { envelopeAddress } from '../address.ts';
import type { Logger } from '../log.ts';
import type { BreakerKey, Breakers, BreakerState } from './breakers.ts';
import { askBreakers, type Channel } from './choices.ts';
import { sign } from './dkim.ts';
import {
  domainOf,
  isUntouched,
  tookLogin,
  tookSender,
  troublesOf,
  type Signal,
  type Trouble,
} from './signal.ts';

export interface OutgoingMail {
  /** As the sender has it: the From address and the envelope's. */
  sender: string;
  to: string[];
  raw: Buffer;
  /** See {@link SendOptions}. */
  isTransparent?: boolean;
}

export interface Sent {
  signal: Signal;
  /** Until somebody would take mail of this sender again; for what was held. */
  waitSeconds: number;
}

/** A place in a pool, with what it took. */
export interface Held {
  channel: Channel;
  probes: BreakerKey[];
  /** Handed to the mail server: it has cost a token. */
  spent: boolean;
}

interface SendContext {
  log: Logger;
  breakers: Breakers;
  /** Seconds until somebody would take mail of the sender. */
  waitFor: (sender: string) => number;
}

/** Others are asked first for so long. */
const AWAY_MS = 5000;

/** Sends over one mail server. Never throws. */
export async function sendOver(
  { log, breakers, waitFor }: SendContext,
  held: Held,
  { sender, to, raw, isTransparent }: OutgoingMail,
): Promise<Sent> {
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
    const found = askBreakers(breakers, keys);
    const slow = `${config.name} is slow for ${domains.join(', ')}`;
    if ('waitSeconds' in found) return withheld('slowed', slow, found.waitSeconds);
    if (found.probes.length > 0) {
      if (!(await breakers.takeProbe(found.probes)))
        return withheld('slowed', slow, waitOf(breakers.stateOf(found.probes[0]!)));
      probes.push(...found.probes);
    }
    const signed = config.dkim ? await sign(raw, config.dkim) : raw;
    held.spent = true;
    const envelope = { from: envelopeAddress(sender), to };
    const signal = await channel.pool.send(envelope, signed, {
      fresh: probes.length > 0,
      isTransparent,
    });
    if (signal.kind === 'lost' && isUntouched(signal))
      channel.state.awayUntil = performance.now() + AWAY_MS;
    await learn(breakers, log, config.name, probes, sender.toLowerCase(), signal);
    return { signal, waitSeconds: waitFor(sender.toLowerCase()) };
  } catch (error) {
    // The database, or the signer; nothing was handed over.
    log.warn({ error: (error as Error).message, transport: config.name }, 'not sent');
    return withheld('slowed', 'not sent', 1);
  } finally {
    entered?.leave();
  }
}

/** Opens, closes and opens again what the signal tells of. What cannot be written is met again. */
async function learn(
  breakers: Breakers,
  log: Logger,
  transport: string,
  probes: readonly BreakerKey[],
  sender: string,
  signal: Signal,
): Promise<void> {
  const troubles = new Map(
    troublesOf(signal).map((trouble) => {
      const key = keyOf(trouble, transport, sender);
      return [JSON.stringify(key), { key, trouble }] as const;
    }),
  );
  try {
    for (const { key, trouble } of troubles.values())
      await breakers.open(key, trouble.reason, trouble.reply);
    for (const key of probes) {
      if (troubles.has(JSON.stringify(key))) continue;
      const works = key.sender || key.domain ? tookSender(signal) : tookLogin(signal);
      if (works) await breakers.close(key);
      else await breakers.openAgain(key, replyOf(signal));
    }
  } catch (error) {
    log.warn({ error: (error as Error).message, transport }, 'breaker not written');
  }
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
