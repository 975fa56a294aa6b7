// One HTTP request to addresses that were checked, and its whole answer. No redirect is followed, no
// proxy used, no connection kept, nothing decompressed, and at most `maxBytes` of an answer are read.
import type { LookupAddress } from 'node:dns';
import http, { type ClientRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import https from 'node:https';
import type { LookupFunction } from 'node:net';

export interface Exchange {
  /** Where to, its headers, and the signal that cuts it off. */
  options: RequestOptions;
  /** All of the host's; Node asks no lookup where the host is an address itself. */
  addresses: LookupAddress[];
  body: string;
  maxBytes: number;
}

export interface Answered {
  status: number;
  /** 0 to 86,400; undefined where the answer does not say. */
  retryAfterSeconds: number | undefined;
  body: Buffer;
}

const MOST_RETRY_AFTER_SECONDS = 86_400;
/** For each of a name's addresses but the last: Node's own 250 ms give up on far continents. */
const CONNECTING = { autoSelectFamilyAttemptTimeout: 2500 };

/** Undefined where the body is larger than `maxBytes`. @throws where there is no whole answer */
export async function exchange(given: Exchange): Promise<Answered | undefined> {
  const { options, addresses, body, maxBytes } = given;
  const request = (options.protocol === 'https:' ? https : http).request({
    ...options,
    ...CONNECTING,
    method: 'POST',
    lookup: answerWith(addresses),
    agent: false, // a connection of its own, and no proxy of the environment
  });
  let failure: Error | undefined;
  request.on('error', (error) => (failure ??= error));
  try {
    const responding = responseTo(request);
    request.end(body);
    const response = await responding;
    const read = await readAtMost(maxBytes, response);
    // A body without a length ends with the connection, to Node also where that was lost or cut by us.
    options.signal?.throwIfAborted();
    if (failure) throw failure;
    return (
      read && {
        status: response.statusCode ?? 0,
        retryAfterSeconds: readRetryAfter(response.headers['retry-after']),
        body: read,
      }
    );
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

function responseTo(request: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.on('response', (response) => {
      response.on('error', () => undefined);
      resolve(response);
    });
    request.on('error', reject);
    request.on('close', () => reject(new Error('the connection was closed without an answer')));
  });
}

/** Undefined where there is more, whatever length the answer claimed. @throws where it ends early */
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
