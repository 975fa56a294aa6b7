// Which mail servers there are, read from the configuration. Every mistake is named by its path, and
// nothing that is secret (a password in a URL, a private key) ever stands in an error text.
import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import * as v from 'valibot';

export type TlsPolicy = 'opportunistic' | 'required' | 'off';

export interface TransportConfig {
  /** How it is called in the log, in /readyz and in the database. */
  readonly name: string;
  /** smtp[s]://user:pass@host:port */
  readonly url: string;
  /** Its share of the messages that others could send as well. */
  readonly weight: number;
  /** Connections per worker process for list mail; other lanes have at most as many. */
  readonly connections: number;
  /** Of all workers together. */
  readonly messagesPerSecond?: number;
  /** Messages to one recipient domain at once, per worker process. */
  readonly perDomainConnections?: number;
  readonly tls: TlsPolicy;
  /** From addresses it serves, lower case, `*` for any characters; undefined serves all. */
  readonly senders?: readonly string[];
  readonly dkim?: DkimKey;
}

export interface DkimKey {
  readonly domain: string;
  readonly selector: string;
  /** PEM, RSA. */
  readonly privateKey: string;
}

const SMTP_URL_MESSAGE = 'must be a URL such as smtp://user:password@mail.example.com:587';

const count = (most: number) => {
  const message = `must be a whole number from 1 to ${most}`;
  return v.pipe(
    v.number(message),
    v.integer(message),
    v.minValue(1, message),
    v.maxValue(most, message),
  );
};
const positive = (message: string) =>
  v.pipe(v.number(message), v.finite(message), v.gtValue(0, message));
const text = (message: string, shape: RegExp) => v.pipe(v.string(message), v.regex(shape, message));
const hostName = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/iu;

const Dkim = v.strictObject(
  {
    domain: text('must be a domain such as example.com', hostName),
    selector: text('must be a DKIM selector such as mail2026', hostName),
    private_key: v.optional(v.string('must be a private key in PEM')),
    private_key_file: v.optional(v.string('must be the path of a private key in PEM')),
  },
  onlyKnown('must be an object with domain, selector and private_key or private_key_file'),
);

const Transport = v.strictObject(
  {
    name: text(
      'must be a name of 1 to 64 letters, digits, dots, dashes or underscores',
      /^[a-z0-9._-]{1,64}$/iu,
    ),
    url: v.pipe(v.string(SMTP_URL_MESSAGE), v.check(isSmtpUrl, SMTP_URL_MESSAGE)),
    weight: v.optional(positive('must be a number more than 0'), 1),
    connections: v.optional(count(1000), 20),
    messages_per_second: v.optional(positive('must be a number more than 0')),
    per_domain_connections: v.optional(count(1000)),
    tls: v.optional(
      v.picklist(
        ['opportunistic', 'required', 'off'],
        'must be one of opportunistic, required, off',
      ),
      'opportunistic',
    ),
    senders: v.optional(
      v.pipe(
        v.array(
          text(
            'must be an address such as news@example.com or *@example.com',
            /^[^\s@]+@[^\s@]+$/u,
          ),
          'must be a list of addresses',
        ),
        v.minLength(1, 'must not be empty: leave it out to serve every sender'),
      ),
    ),
    dkim: v.optional(Dkim),
  },
  onlyKnown('must be an object with name and url'),
);

const Transports = v.pipe(
  v.array(Transport, 'must be a list of mail servers'),
  v.minLength(1, 'must name at least one mail server'),
  v.check(
    (list) => new Set(list.map((one) => one.name)).size === list.length,
    'must not name two mail servers alike',
  ),
);

/** Valibot's own messages repeat the value, which may be a secret. */
function onlyKnown(otherwise: string) {
  return (issue: v.StrictObjectIssue) => {
    if (issue.expected === 'never') return 'is not a known field';
    return issue.path && issue.received === 'undefined' ? 'is missing' : otherwise;
  };
}

export function isSmtpUrl(given: string): boolean {
  if (!URL.canParse(given)) return false;
  const { protocol, hostname, username, password } = new URL(given);
  if (!['smtp:', 'smtps:'].includes(protocol) || hostname === '') return false;
  try {
    decodeURIComponent(username + password);
    return true;
  } catch {
    return false;
  }
}

/** The one mail server of `SMTP_URL`. */
export function singleTransport(url: string): TransportConfig {
  return { name: 'default', url, weight: 1, connections: 20, tls: 'opportunistic' };
}

/**
 * Reads the value of TRANSPORTS: JSON, or the path of a file with JSON, relative paths within which
 * start at its folder. Problems are lines for people, each beginning with the path of what is wrong.
 */
export function readTransports(
  given: string,
): { transports: readonly TransportConfig[] } | { problems: string[] } {
  const source = /^\s*[[{]/u.test(given)
    ? { json: given, folder: process.cwd() }
    : { json: readOrUndefined(given), folder: path.dirname(path.resolve(given)) };
  if (source.json === undefined) {
    return { problems: ['TRANSPORTS is neither JSON nor the path of a file that can be read'] };
  }
  let value: unknown;
  try {
    value = JSON.parse(source.json);
  } catch {
    return { problems: ['TRANSPORTS is not valid JSON'] }; // the parser's message quotes the text
  }
  const parsed = v.safeParse(Transports, value);
  if (!parsed.success) {
    return {
      problems: parsed.issues.map((issue) => `${pathOf(v.getDotPath(issue))} ${issue.message}`),
    };
  }
  const problems: string[] = [];
  const transports = parsed.output.map((one, index): TransportConfig => {
    const key = one.dkim && readKey(one.dkim, source.folder);
    if (key && 'problem' in key) problems.push(`TRANSPORTS[${index}].dkim ${key.problem}`);
    return Object.freeze({
      name: one.name,
      url: one.url,
      weight: one.weight,
      connections: one.connections,
      tls: one.tls,
      ...(one.messages_per_second && { messagesPerSecond: one.messages_per_second }),
      ...(one.per_domain_connections && { perDomainConnections: one.per_domain_connections }),
      ...(one.senders && { senders: one.senders.map((sender) => sender.toLowerCase()) }),
      ...(key && 'key' in key && { dkim: key.key }),
    });
  });
  return problems.length > 0 ? { problems } : { transports: Object.freeze(transports) };
}

function pathOf(dotPath: string | null): string {
  if (dotPath === null) return 'TRANSPORTS';
  return `TRANSPORTS.${dotPath}`.replace(/\.(\d+)(?=\.|$)/gu, '[$1]');
}

function readOrUndefined(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function readKey(
  given: v.InferOutput<typeof Dkim>,
  folder: string,
): { key: DkimKey } | { problem: string } {
  const { domain, selector, private_key: inline, private_key_file: file } = given;
  if ((inline === undefined) === (file === undefined))
    return { problem: 'needs one of private_key and private_key_file' };
  const privateKey = inline ?? readOrUndefined(path.resolve(folder, file!));
  if (privateKey === undefined) return { problem: 'names a private_key_file that cannot be read' };
  try {
    // A key the signer cannot use would leave the mail unsigned without a word.
    if (createPrivateKey(privateKey).asymmetricKeyType !== 'rsa')
      return { problem: 'has a private key that is not RSA' };
  } catch {
    return { problem: 'has a private key that is not valid PEM' };
  }
  return { key: Object.freeze({ domain, selector, privateKey }) };
}

/** Whether the mail server is there for mail from this address, given in lower case. */
export function serves({ senders }: TransportConfig, sender: string): boolean {
  return !senders || senders.some((pattern) => patternOf(pattern).test(sender));
}

const patterns = new Map<string, RegExp>();

function patternOf(pattern: string): RegExp {
  let found = patterns.get(pattern);
  if (!found) {
    const parts = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/gu, '\\$&'));
    found = new RegExp(`^${parts.join('.*')}$`, 'u');
    patterns.set(pattern, found);
  }
  return found;
}
