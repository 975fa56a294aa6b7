// One guarded, signed request to a URL that a client gave (Standard Webhooks 1.0). The address that is
// connected to is the address that was checked: a name is resolved once, here, and a name with one
// forbidden address among its addresses is refused as a whole. No redirect is followed, no proxy used,
// no connection kept. From the first lookup to the last byte it takes at most `timeoutMs`, and at most
// `maxBytes` are kept of an answer. What the other side does is a value, never an exception.
import dns, { type LookupAddress } from 'node:dns';
import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import { Webhook } from 'standardwebhooks';
import { VERSION } from '../root.ts';
import { addressFlaw, portFlaw, type NetworkRules } from './networks.ts';

export interface CallbackPolicy extends NetworkRules {
  /** From the lookup of the name to the last byte of the answer. */
  readonly timeoutMs: number;
  /** Of an answer's body. */
  readonly maxBytes: number;
}

export type CallbackAnswer =
  /** The whole body was read; any status, a redirect too. */
  | {
      kind: 'answered';
      status: number;
      /** 0 to 86,400; undefined where the answer does not say. */
      retryAfterSeconds: number | undefined;
      body: Buffer;
    }
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
const MOST_RETRY_AFTER_SECONDS = 86_400;
/** For each of a name's addresses but the last: Node's own 250 ms give up on far continents. */
const CONNECTING = { autoSelectFamilyAttemptTimeout: 2500 };

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
    return await exchange({ target, addresses, headers, body, policy, stop: stop.signal });
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
  const target = URL.parse(url);
  if (!target || !/^https?:$/u.test(target.protocol)) return 'must be an http or https URL';
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

function signedHeaders(id: string, secret: string, body: string): http.OutgoingHttpHeaders {
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

interface Exchange {
  target: URL;
  /** Checked. */
  addresses: LookupAddress[];
  headers: http.OutgoingHttpHeaders;
  body: string;
  policy: CallbackPolicy;
  stop: AbortSignal;
}

async function exchange(given: Exchange): Promise<CallbackAnswer> {
  const { target, addresses, headers, body, policy, stop } = given;
  const request = (target.protocol === 'https:' ? https : http).request({
    method: 'POST',
    hostname: hostOf(target), // where it is an address, Node asks no lookup: it is the checked one
    port: portOf(target),
    path: target.pathname + target.search,
    headers,
    agent: false, // a connection of its own, which ends with it; also no proxy of the environment
    signal: stop,
    lookup: answerWith(addresses),
    ...CONNECTING,
  });
  try {
    const responding = responseTo(request);
    request.end(body);
    const response = await responding;
    const parts = await readAtMost(policy.maxBytes, response);
    if (!parts) {
      return { kind: 'too_large', detail: `the answer is more than ${policy.maxBytes} bytes` };
    }
    return {
      kind: 'answered',
      status: response.statusCode ?? 0,
      retryAfterSeconds: readRetryAfter(response.headers['retry-after']),
      body: parts,
    };
  } finally {
    request.destroy();
  }
}

/** Instead of a second lookup, which could give another address than the first. */
function answerWith(addresses: LookupAddress[]): LookupFunction {
  return (_hostname, { all }, done) => {
    const [first] = addresses;
    if (all) done(null, addresses);
    else done(null, first!.address, first!.family);
  };
}

/** Errors after the first one are nobody's any more, but an error without a listener ends the process. */
function responseTo(request: http.ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.on('response', (response) => {
      response.on('error', () => undefined);
      resolve(response);
    });
    request.on('error', reject);
    request.on('close', () => reject(new Error('the connection was closed without an answer')));
  });
}

/** Undefined where there is more, whatever its length was said to be. @throws where it ends early */
async function readAtMost(most: number, response: IncomingMessage): Promise<Buffer | undefined> {
  if (Number(response.headers['content-length'] ?? 0) > most) return undefined;
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of response as AsyncIterable<Buffer>) {
      size += part.length;
      if (size > most) return undefined;
      parts.push(part);
    }
  } catch (error) {
    throw new Error('the connection was lost in the middle of the answer', { cause: error });
  }
  return Buffer.concat(parts);
}

/** Seconds or an HTTP date (RFC 9110, section 10.2.3). */
function readRetryAfter(given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  const seconds = /^\d+$/u.test(given)
    ? Number(given)
    : given.endsWith(' GMT')
      ? Math.ceil((Date.parse(given) - Date.now()) / 1000)
      : Number.NaN;
  if (Number.isNaN(seconds)) return undefined;
  return Math.min(Math.max(seconds, 0), MOST_RETRY_AFTER_SECONDS);
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
