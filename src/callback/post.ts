// One guarded, signed request to a URL that a client gave (Standard Webhooks 1.0). The address that is
// connected to is the address that was checked: a name is resolved once, here, and a name with one
// forbidden address among its addresses is refused as a whole. From the lookup to the last byte it takes
// at most `timeoutMs`. What the other side does is a value, never an exception.
import dns, { type LookupAddress } from 'node:dns';
import type { OutgoingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { Webhook } from 'standardwebhooks';
import { VERSION } from '../root.ts';
import { exchange, type Answered } from './exchange.ts';
import { addressFlaw, portFlaw, type NetworkRules } from './networks.ts';

export interface CallbackPolicy extends NetworkRules {
  /** From the lookup of the name to the last byte of the answer. */
  readonly timeoutMs: number;
  /** Of an answer's body. */
  readonly maxBytes: number;
}

export type CallbackAnswer =
  /** The whole body was read; any status, a redirect too. */
  | ({ kind: 'answered' } & Answered)
  /** No such name, refused, reset, TLS, no HTTP, no complete answer in time, or cancelled: worth another try. */
  | { kind: 'unreachable'; detail: string }
  /** Where it points may not be called: no connection was made. */
  | { kind: 'forbidden'; detail: string }
  | { kind: 'too_large'; detail: string };

export interface CallbackRequest {
  url: string;
  /** webhook-id: the same in every try. Letters, digits, `-`, `_`, `.`, `:`. */
  id: string;
  /** `whsec_` and base64. */
  secret: string;
  /** JSON. */
  body: string;
  policy: CallbackPolicy;
  /** Ends it early, as `unreachable`. */
  signal?: AbortSignal;
}

/** All addresses of a name. @throws where there is none */
export type Resolve = (hostname: string) => Promise<LookupAddress[]>;

const MOST_URL_CHARACTERS = 2048;
/** The URL parser would drop white space and take `\\` for `/`. */
const HTTP_URL = /^https?:\/\/[^\s\\\p{Cc}]+$/iu;

export async function postSigned(
  { url, id, secret, body, policy, signal }: CallbackRequest,
  resolve: Resolve = resolveBySystem,
): Promise<CallbackAnswer> {
  const flaw = urlFlaw(url, policy);
  if (flaw !== undefined) return { kind: 'forbidden', detail: `the URL ${flaw}` };
  const headers = signedHeaders(id, secret, body);
  const target = new URL(url);
  const stop = new AbortController();
  const cancel = () => stop.abort(new Error('cancelled'));
  const late = setTimeout(
    () => stop.abort(new Error(`no complete answer within ${policy.timeoutMs / 1000} s`)),
    policy.timeoutMs,
  );
  signal?.addEventListener('abort', cancel);
  if (signal?.aborted) cancel();
  try {
    const addresses = await untilStopped(stop.signal, addressesOf(target, resolve));
    const forbidden = forbiddenAmong(addresses, target, policy);
    if (forbidden !== undefined) return { kind: 'forbidden', detail: forbidden };
    const { maxBytes } = policy;
    const answer = await exchange({
      options: {
        protocol: target.protocol,
        hostname: hostOf(target),
        port: portOf(target),
        path: target.pathname + target.search,
        headers,
        signal: stop.signal,
      },
      addresses,
      body,
      maxBytes,
    });
    return answer
      ? { kind: 'answered', ...answer }
      : { kind: 'too_large', detail: `the answer is more than ${maxBytes} bytes` };
  } catch (error) {
    const detail = oneLine(stop.signal.aborted ? stop.signal.reason : error);
    return { kind: 'unreachable', detail };
  } finally {
    clearTimeout(late);
    signal?.removeEventListener('abort', cancel);
  }
}

/**
 * What is wrong with a URL as far as it shows without asking anybody, worded for a field error; undefined
 * where it may be called. A name with a port that is not among `ports` passes where networks are
 * allowed: it may lie in one of them, which is seen when it is called.
 */
export function urlFlaw(url: string, policy: NetworkRules): string | undefined {
  if (url.length > MOST_URL_CHARACTERS) return `must be at most ${MOST_URL_CHARACTERS} characters`;
  const target = HTTP_URL.test(url) ? URL.parse(url) : null;
  if (!target) return 'must be an http or https URL';
  if (target.username !== '' || target.password !== '') return 'must not have a user or password';
  const host = hostOf(target);
  const port = portOf(target);
  const flaw =
    isIP(host) > 0
      ? addressFlaw(host, port, policy)
      : isLocalhost(host)
        ? // Either of the two may be allowed; what it resolves to is checked when it is called.
          addressFlaw('127.0.0.1', port, policy) && addressFlaw('::1', port, policy)
        : policy.allow.length === 0
          ? portFlaw(port, policy.ports)
          : undefined;
  return flaw && `must ${flaw}`;
}

/** RFC 6761, section 6.3: these names are the machine itself, whatever a resolver says. */
function isLocalhost(host: string): boolean {
  return /(^|\.)localhost\.?$/u.test(host);
}

/** The URL parser has made every spelling of an IPv4 address (octal, hexadecimal, short …) the usual one. */
function hostOf({ hostname }: URL): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname;
}

function portOf({ protocol, port }: URL): number {
  return port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port);
}

async function addressesOf(target: URL, resolve: Resolve): Promise<LookupAddress[]> {
  const host = hostOf(target);
  const version = isIP(host);
  if (version > 0) return [{ address: host, family: version }];
  const addresses = await resolve(host);
  if (addresses.length === 0) throw new Error(`${host} has no address`);
  return addresses;
}

function resolveBySystem(hostname: string): Promise<LookupAddress[]> {
  return dns.promises.lookup(hostname, { all: true });
}

/** The address itself is not told: a client is not to learn what names inside the network mean. */
function forbiddenAmong(
  addresses: LookupAddress[],
  target: URL,
  policy: CallbackPolicy,
): string | undefined {
  for (const { address } of addresses) {
    const flaw = addressFlaw(address, portOf(target), policy);
    if (flaw !== undefined) return `an address of ${oneLine(hostOf(target))} must ${flaw}`;
  }
  return undefined;
}

function signedHeaders(id: string, secret: string, body: string): OutgoingHttpHeaders {
  const now = new Date();
  return {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'accept-encoding': 'identity', // a compressed answer could be far larger than what was read
    'user-agent': `Rosterpost/${VERSION}`,
    'webhook-id': id,
    'webhook-timestamp': Math.floor(now.getTime() / 1000),
    'webhook-signature': new Webhook(secret).sign(id, now, body),
  };
}

/** A lookup cannot be stopped; it is left to itself. */
function untilStopped<Value>(stop: AbortSignal, working: Promise<Value>): Promise<Value> {
  return new Promise((resolve, reject) => {
    if (stop.aborted) reject(stop.reason as Error);
    stop.addEventListener('abort', () => reject(stop.reason as Error), { once: true });
    working.then(resolve, reject);
  });
}

/** Short, and of characters that can be stored: a certificate's names may stand in it. */
function oneLine(thrown: unknown): string {
  const { message, code } = (typeof thrown === 'string' ? { message: thrown } : thrown) as {
    message?: string;
    code?: string;
  };
  // Where several addresses were tried, there is a code only.
  return (message || code || 'failed')
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .slice(0, 300)
    .toWellFormed();
}
