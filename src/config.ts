// The environment, read once and only here. readConfig names everything that is wrong in one
// error, so an operator fixes a deployment in one go; the result is frozen.
import path from 'node:path';
import * as v from 'valibot';
import { parseAddress } from './address.ts';
import { isNetwork } from './callback/networks.ts';
import type { CallbackPolicy } from './callback/post.ts';
import {
  isSmtpUrl,
  readTransports,
  singleTransport,
  type TransportConfig,
} from './smtp/transport-config.ts';

// React decides on first import; its development build renders a mail three times slower.
process.env.NODE_ENV ??= 'production';

export interface Config {
  /** Of the PostgreSQL that holds data and queue; `dev` brings its own where undefined. */
  readonly databaseUrl: string | undefined;
  /** The mail servers; `dev` brings a local sink where there is none. */
  readonly transports: readonly TransportConfig[];
  readonly host: string;
  readonly port: number;
  /** Absolute path of what `dev` keeps: the embedded cluster, its key, the inbox. */
  readonly dataDir: string;
  /** Base of links in mails, without a trailing slash. */
  readonly publicUrl: string;
  /** Whether PUBLIC_URL says so; else it is where the API is told to listen. */
  readonly isPublicUrlSet: boolean;
  /** The mailbox for those who unsubscribe by mail. */
  readonly unsubscribeMailto: string | undefined;
  readonly logLevel: LogLevel;
  readonly attachments: AttachmentLimits;
  readonly callback: CallbackPolicy;
  /** Days that messages, contexts and attachments are kept; for ever where undefined. */
  readonly retentionDays: number | undefined;
  readonly timing: Timing;
}

/** What tests scale down. */
export interface Timing {
  readonly retry: RetrySchedule;
  readonly liveness: Liveness;
  /** How long a worker that was told to stop may finish what is in hand. */
  readonly shutdownGraceMs: number;
  /** First pause of a mail server that is stopped; doubles up to thirty times as long. */
  readonly breakerSeconds: number;
}

/** When a message that was put off is tried again. All in seconds. */
export interface RetrySchedule {
  /** To the next try after the 1st, 2nd … one; the last entry repeats. */
  readonly delays: readonly number[];
  /** Put before `delays` for urgent mail. */
  readonly urgent: readonly number[];
  /** After which a message is given up, from when it was made. */
  readonly window: number;
  /** The shortest delay after a 4xx reply: a greylisting server wants to be left alone that long. */
  readonly greylist: number;
}

/** How it is known that a worker process is alive. */
export interface Liveness {
  readonly heartbeatMs: number;
  /** A worker whose last heartbeat is older is declared dead. */
  readonly deadAfterMs: number;
}

export interface AttachmentLimits {
  /** Bytes of one file. */
  readonly maxBytes: number;
  /** Bytes of all files of one email. */
  readonly maxTotalBytes: number;
  readonly maxCount: number;
}

export type LogLevel = (typeof LOG_LEVELS)[number];
const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

/** Wrong settings; `problems` has a line for each. */
export class ConfigError extends Error {
  readonly problems: string[];

  constructor(problems: string[]) {
    super(`The configuration is not valid:\n${problems.map((line) => `  - ${line}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

function url(protocols: string[], example: string) {
  return v.pipe(
    v.string(),
    v.check((text) => {
      if (!URL.canParse(text)) return false;
      const { protocol, hostname } = new URL(text);
      return protocols.includes(protocol) && hostname !== '';
    }, `must be a URL such as ${example}`),
  );
}

const MIB = 1024 * 1024;
/** Of one answer: 1,000 contexts of 16 KiB. */
const CALLBACK_MAX_BYTES = 16 * MIB;

function wholeNumberTo(most: number) {
  const message = `must be a whole number from 1 to ${most}`;
  return v.pipe(
    v.string(),
    v.regex(/^\d{1,10}$/u, message),
    v.transform(Number),
    v.minValue(1, message),
    v.maxValue(most, message),
  );
}

function wholeNumber(most: number, otherwise: number) {
  return v.optional(wholeNumberTo(most), String(otherwise));
}

/** Seconds, fractions allowed. */
function seconds(otherwise: number) {
  const message = 'must be a number of seconds, more than 0';
  return v.optional(
    v.pipe(v.string(), v.regex(/^\d{1,9}(\.\d{1,3})?$/u, message), v.transform(Number)),
    String(otherwise),
  );
}

function listOfSeconds(otherwise: string) {
  const message = 'must be numbers of seconds with commas between them, such as 60,300,900';
  return v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,9}(\.\d{1,3})?(,\d{1,9}(\.\d{1,3})?)*$/u, message),
      v.transform((text) => text.split(',').map(Number)),
    ),
    otherwise,
  );
}

function networks() {
  return v.optional(
    v.pipe(
      v.string(),
      v.transform(splitList),
      v.array(
        v.pipe(
          v.string(),
          v.check(
            isNetwork,
            ({ input }) =>
              `must be networks or addresses such as 10.1.0.0/16,fd00::7 with commas between them; "${input}" is none`,
          ),
        ),
      ),
    ),
    '',
  );
}

function ports(otherwise: string) {
  const message = 'must be port numbers from 1 to 65535 with commas between them, such as 80,443';
  return v.optional(
    v.pipe(
      v.string(),
      v.transform((text) =>
        splitList(text).map((one) => (/^\d{1,5}$/u.test(one) ? Number(one) : 0)),
      ),
      v.nonEmpty(message),
      v.check((list) => list.every((port) => port >= 1 && port <= 65_535), message),
    ),
    otherwise,
  );
}

function splitList(text: string): string[] {
  return text.split(',').flatMap((one) => one.trim() || []);
}

const Environment = v.object({
  DATABASE_URL: v.optional(
    v.pipe(
      v.string(),
      v.regex(
        /^postgres(ql)?:\/\//u,
        'must be a URL such as postgres://user:password@host:5432/rosterpost',
      ),
    ),
  ),
  SMTP_URL: v.optional(
    v.pipe(
      v.string(),
      v.check(isSmtpUrl, 'must be a URL such as smtp://user:password@mail.example.com:587'),
    ),
  ),
  TRANSPORTS: v.optional(v.string()),
  HOST: v.optional(v.pipe(v.string(), v.nonEmpty()), '127.0.0.1'),
  PORT: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,5}$/u, 'must be a port number from 0 to 65535'),
      v.transform(Number),
      v.maxValue(65_535, 'must be a port number from 0 to 65535'),
    ),
    '3000',
  ),
  DATA_DIR: v.optional(v.pipe(v.string(), v.nonEmpty()), '.data'),
  PUBLIC_URL: v.optional(url(['http:', 'https:'], 'https://mail.example.com')),
  UNSUBSCRIBE_MAILTO: v.optional(
    v.pipe(
      v.string(),
      v.check(
        (text) => typeof parseAddress(text) !== 'string',
        'must be an email address such as unsubscribe@example.com',
      ),
    ),
  ),
  // PostgreSQL holds at most 1 GiB in one value; a mail grows by a third on its way.
  ATTACHMENT_MAX_BYTES: wholeNumber(500 * MIB, 10 * MIB),
  ATTACHMENTS_MAX_TOTAL_BYTES: wholeNumber(500 * MIB, 25 * MIB),
  ATTACHMENTS_MAX_COUNT: wholeNumber(100, 20),
  CALLBACK_ALLOW: networks(),
  CALLBACK_PORTS: ports('80,443'),
  CALLBACK_TIMEOUT_SECONDS: wholeNumber(600, 30),
  RETRY_DELAYS: listOfSeconds('60,300,900,1800,3600,7200,14400,21600'),
  RETRY_URGENT_DELAYS: listOfSeconds('10'),
  RETRY_WINDOW: seconds(72 * 3600),
  GREYLIST_SECONDS: seconds(300),
  HEARTBEAT_SECONDS: seconds(5),
  DEAD_AFTER_SECONDS: seconds(20),
  SHUTDOWN_GRACE_SECONDS: seconds(25),
  BREAKER_SECONDS: seconds(30),
  RETENTION_DAYS: v.optional(wholeNumberTo(36_500)),
  LOG_LEVEL: v.optional(v.picklist(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(', ')}`), 'info'),
});

/**
 * Reads the environment. An empty variable counts as unset.
 * @throws ConfigError naming every variable that is wrong.
 */
export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''));
  const parsed = v.safeParse(Environment, given);
  const mail = readMailServers(given);
  const problems = [
    ...(parsed.issues ?? []).map(
      (issue) => `${v.getDotPath(issue)?.split('.')[0] ?? 'environment'} ${issue.message}`,
    ),
    ...('problems' in mail ? mail.problems : []),
  ];
  if (!parsed.success || 'problems' in mail) throw new ConfigError(problems);
  const read = parsed.output;
  const { transports } = mail;
  return Object.freeze({
    databaseUrl: read.DATABASE_URL,
    transports,
    host: read.HOST,
    port: read.PORT,
    dataDir: path.resolve(read.DATA_DIR),
    publicUrl: (read.PUBLIC_URL ?? `http://${read.HOST}:${read.PORT}`).replace(/\/+$/u, ''),
    isPublicUrlSet: read.PUBLIC_URL !== undefined,
    unsubscribeMailto: read.UNSUBSCRIBE_MAILTO?.trim(),
    logLevel: read.LOG_LEVEL,
    attachments: Object.freeze({
      maxBytes: read.ATTACHMENT_MAX_BYTES,
      maxTotalBytes: read.ATTACHMENTS_MAX_TOTAL_BYTES,
      maxCount: read.ATTACHMENTS_MAX_COUNT,
    }),
    callback: Object.freeze({
      allow: Object.freeze(read.CALLBACK_ALLOW),
      ports: Object.freeze(read.CALLBACK_PORTS),
      timeoutMs: read.CALLBACK_TIMEOUT_SECONDS * 1000,
      maxBytes: CALLBACK_MAX_BYTES,
    }),
    retentionDays: read.RETENTION_DAYS,
    timing: Object.freeze({
      retry: Object.freeze({
        delays: read.RETRY_DELAYS,
        urgent: read.RETRY_URGENT_DELAYS,
        window: read.RETRY_WINDOW,
        greylist: read.GREYLIST_SECONDS,
      }),
      liveness: Object.freeze({
        heartbeatMs: read.HEARTBEAT_SECONDS * 1000,
        deadAfterMs: read.DEAD_AFTER_SECONDS * 1000,
      }),
      shutdownGraceMs: read.SHUTDOWN_GRACE_SECONDS * 1000,
      breakerSeconds: read.BREAKER_SECONDS,
    }),
  });
}

/** Of TRANSPORTS or of SMTP_URL; a wrong SMTP_URL is named by its own check. */
function readMailServers({
  TRANSPORTS: list,
  SMTP_URL: single,
}: NodeJS.ProcessEnv): ReturnType<typeof readTransports> {
  if (list !== undefined && single !== undefined)
    return { problems: ['TRANSPORTS and SMTP_URL are both set: one of them is enough'] };
  if (list !== undefined) return readTransports(list);
  return { transports: single === undefined ? [] : [singleTransport(single)] };
}

/** @throws ConfigError where `DATABASE_URL` is missing. */
export function requireDatabaseUrl(config: Config): string {
  if (config.databaseUrl) return config.databaseUrl;
  throw new ConfigError([
    'DATABASE_URL is needed, such as postgres://user:password@host:5432/rosterpost ' +
      '(rosterpost dev brings its own database)',
  ]);
}

/** @throws ConfigError where no mail server is configured. */
export function requireTransports({ transports }: Config): readonly TransportConfig[] {
  if (transports.length > 0) return transports;
  throw new ConfigError([
    'SMTP_URL is needed by the worker, such as smtp://user:password@mail.example.com:587 ' +
      '(rosterpost dev brings a local inbox)',
  ]);
}
