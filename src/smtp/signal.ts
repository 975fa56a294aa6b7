// What an SMTP server did with a message, as a value. The transport reports the bare fact (a
// signal); this file turns it into what we make of the message (an outcome), and says what it means
// for other mail (a trouble). Nothing here does I/O.
//
//   signal                                          outcome              trouble
//   no connection, or lost before the body went     deferred
//   lost after the body went, no reply              unknown
//   4xx                                             deferred
//   421, 454, 4.7.x                                 deferred             the mail server is slow,
//                                                                        at RCPT the recipient's domain
//   5xx before the login, login refused             held                 the mail server is stopped
//   5xx at MAIL FROM, 552 or 5.3.4                  failed
//   5xx at MAIL FROM, anything else                 held                 the sender is stopped there
//   5xx at RCPT, 5.1.1 5.1.2 5.1.6 5.1.10           failed, and the address is suppressed
//   5xx elsewhere, or with another code             failed
//
// Held is queued without having been tried: the message is not at fault.
import type { BreakerReason } from '../database/schema.ts';

export type Stage = 'connect' | 'auth' | 'mail' | 'rcpt' | 'data' | 'body';

export interface Reply {
  code: number;
  text: string;
}

/** A recipient the server refused while it took others. */
export interface Refusal extends Reply {
  address: string;
}

export type Signal =
  | { kind: 'accepted'; reply: string; refused: Refusal[] }
  | { kind: 'refused'; stage: Stage; reply: Reply; refused: Refusal[] }
  | { kind: 'lost'; stage: Stage; handedOver: boolean; error: string; refused: Refusal[] }
  /** Not given to the mail server at all. */
  | { kind: 'withheld'; reason: 'domain_busy' | 'slowed'; text: string };

export type Outcome =
  | { kind: 'sent'; reply: string }
  | { kind: 'deferred'; reason: DeferReason; reply: string }
  | { kind: 'held'; reason: HoldReason; reply: string }
  | { kind: 'failed'; reason: FailReason; reply: string; suppress: boolean }
  | { kind: 'unknown'; reason: 'connection_lost'; reply: string };

export type DeferReason = 'connection_failed' | 'deferred_by_server';
export type HoldReason = BreakerReason | 'domain_busy';
export type FailReason = 'hard_bounce' | 'refused_by_server' | 'render_failed' | 'expired';

// RFC 3463: bad mailbox, bad system, moved without forwarding, null MX (RFC 7505). The address is
// at fault; every other code may be about us, the message or the day.
const NO_SUCH_MAILBOX = new Set(['5.1.1', '5.1.2', '5.1.6', '5.1.10']);
const ENHANCED = /^\d{3}[ -](\d\.\d{1,3}\.\d{1,3})\b/u;

/** What a signal means for mail beside this message. */
export type Trouble = { reason: BreakerReason; reply: string } & (
  { scope: 'transport' } | { scope: 'sender' } | { scope: 'domain'; domain: string }
);

/** What became of the message for one of its recipients. */
export function outcomeFor(signal: Signal, address: string): Outcome {
  if (signal.kind === 'withheld')
    return { kind: 'held', reason: signal.reason, reply: signal.text };
  // Whatever came later: this recipient had an answer.
  const refusal = signal.refused.find((one) => one.address === address);
  if (refusal) return refusalOutcome(refusal, 'rcpt');
  if (signal.kind === 'lost') {
    return signal.handedOver
      ? { kind: 'unknown', reason: 'connection_lost', reply: signal.error }
      : { kind: 'deferred', reason: 'connection_failed', reply: signal.error };
  }
  return signal.kind === 'accepted'
    ? { kind: 'sent', reply: signal.reply }
    : refusalOutcome(signal.reply, signal.stage);
}

/** What a negative reply to one recipient's mail means. */
function refusalOutcome(reply: Reply, stage: Stage): Outcome {
  const { code, text } = reply;
  if (stage === 'auth') return { kind: 'held', reason: 'login_refused', reply: text };
  if (code < 500) return { kind: 'deferred', reason: 'deferred_by_server', reply: text };
  if (stage === 'connect') return { kind: 'held', reason: 'connection_refused', reply: text };
  if (stage === 'mail' && !isTooLarge(reply))
    return { kind: 'held', reason: 'sender_refused', reply: text };
  return stage === 'rcpt' && NO_SUCH_MAILBOX.has(enhancedCode(reply))
    ? { kind: 'failed', reason: 'hard_bounce', reply: text, suppress: true }
    : { kind: 'failed', reason: 'refused_by_server', reply: text, suppress: false };
}

/** What else is not to be sent for now, after this signal. */
export function troublesOf(signal: Signal): Trouble[] {
  if (signal.kind === 'lost' || signal.kind === 'withheld') return [];
  const troubles = signal.refused
    .filter(isSlowing)
    .map(({ address, text }): Trouble =>
      /throttl/iu.test(text)
        ? { scope: 'transport', reason: 'slowed', reply: text }
        : { scope: 'domain', domain: domainOf(address), reason: 'slowed', reply: text },
    );
  if (signal.kind === 'accepted' || signal.stage === 'rcpt') return troubles;
  const { stage, reply } = signal;
  if (stage === 'auth') return [{ scope: 'transport', reason: 'login_refused', reply: reply.text }];
  if (stage === 'connect') {
    const reason = reply.code < 500 ? 'slowed' : 'connection_refused';
    return [{ scope: 'transport', reason, reply: reply.text }];
  }
  if (isSlowing(reply)) return [{ scope: 'transport', reason: 'slowed', reply: reply.text }];
  if (stage === 'mail' && reply.code >= 500 && !isTooLarge(reply))
    return [{ scope: 'sender', reason: 'sender_refused', reply: reply.text }];
  return [];
}

/** True where the server has seen nothing of the message: another one may have it in this attempt. */
export function isUntouched(signal: Signal): boolean {
  return (
    (signal.kind === 'lost' && !signal.handedOver && signal.stage === 'connect') ||
    (signal.kind === 'refused' && (signal.stage === 'connect' || signal.stage === 'auth'))
  );
}

/** True where the server took the sender, so that it went on to recipients. */
export function tookSender(signal: Signal): boolean {
  if (signal.kind === 'accepted') return true;
  if (signal.kind !== 'refused') return false;
  return !['connect', 'auth', 'mail'].includes(signal.stage) || isTooLarge(signal.reply);
}

/** True where the login was taken, and the server answered after it. */
export function tookLogin(signal: Signal): boolean {
  return tookSender(signal) || (signal.kind === 'refused' && signal.stage === 'mail');
}

export function domainOf(address: string): string {
  return address.slice(address.lastIndexOf('@') + 1).toLowerCase();
}

function enhancedCode({ text }: Reply): string {
  return ENHANCED.exec(text)?.[1] ?? '';
}

/** RFC 5321 and RFC 3463: the message is too big for the server. */
function isTooLarge(reply: Reply): boolean {
  return reply.code === 552 || enhancedCode(reply) === '5.3.4';
}

/** Too much from us at once. A greylisting server wants this one message later, not fewer of them. */
function isSlowing(reply: Reply): boolean {
  if (reply.code >= 500 || /gr[ea]y-?list/iu.test(reply.text)) return false;
  return reply.code === 421 || reply.code === 454 || enhancedCode(reply).startsWith('4.7.');
}
