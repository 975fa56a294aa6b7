// What an SMTP server did with a message, as a value. The transport reports the bare fact (a
// signal); this file turns it into what we make of it (an outcome). Nothing here does I/O.
//
//   signal                                          outcome
//   no connection, or lost before the body went     deferred
//   lost after the body went, no reply              unknown
//   4xx                                             deferred
//   login refused                                   deferred (nobody's mail is at fault)
//   5xx at RCPT, 5.1.1 5.1.2 5.1.6 5.1.10           failed, and the address is suppressed
//   5xx elsewhere, or with another code             failed

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
  | { kind: 'lost'; stage: Stage; handedOver: boolean; error: string };

export type Outcome =
  | { kind: 'sent'; reply: string }
  | { kind: 'deferred'; reason: DeferReason; reply: string }
  | { kind: 'failed'; reason: FailReason; reply: string; suppress: boolean }
  | { kind: 'unknown'; reason: 'connection_lost'; reply: string };

export type DeferReason = 'connection_failed' | 'login_refused' | 'deferred_by_server';
export type FailReason = 'hard_bounce' | 'refused_by_server' | 'render_failed' | 'expired';

// RFC 3463: bad mailbox, bad system, moved without forwarding, null MX (RFC 7505). The address is
// at fault; every other code may be about us, the message or the day.
const NO_SUCH_MAILBOX = new Set(['5.1.1', '5.1.2', '5.1.6', '5.1.10']);
const ENHANCED = /^\d{3}[ -](\d\.\d{1,3}\.\d{1,3})\b/u;

/** What became of the message for one of its recipients. */
export function outcomeFor(signal: Signal, address: string): Outcome {
  if (signal.kind === 'lost') {
    return signal.handedOver
      ? { kind: 'unknown', reason: 'connection_lost', reply: signal.error }
      : { kind: 'deferred', reason: 'connection_failed', reply: signal.error };
  }
  const refusal = signal.refused.find((one) => one.address === address);
  if (refusal) return refusalOutcome(refusal, 'rcpt');
  return signal.kind === 'accepted'
    ? { kind: 'sent', reply: signal.reply }
    : refusalOutcome(signal.reply, signal.stage);
}

/** What a negative reply to one recipient's mail means. */
function refusalOutcome(reply: Reply, stage: Stage): Outcome {
  if (stage === 'auth') return { kind: 'deferred', reason: 'login_refused', reply: reply.text };
  if (reply.code < 500)
    return { kind: 'deferred', reason: 'deferred_by_server', reply: reply.text };
  const enhanced = ENHANCED.exec(reply.text)?.[1] ?? '';
  return stage === 'rcpt' && NO_SUCH_MAILBOX.has(enhanced)
    ? { kind: 'failed', reason: 'hard_bounce', reply: reply.text, suppress: true }
    : { kind: 'failed', reason: 'refused_by_server', reply: reply.text, suppress: false };
}
