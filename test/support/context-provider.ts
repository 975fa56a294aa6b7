// A client's side of the context callback for tests and benches: a real HTTP server that checks the
// signature as a client would, answers with contexts, journals every request, and misbehaves as told.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';

/** What workers post. */
export interface ContextRequest {
  send_id: string;
  send_key: string;
  list_key: string;
  template_key: string;
  chunk: number;
  recipients: { source_object_key: string; email: string }[];
}

export type Conduct =
  | 'ok'
  /** Never answers. */
  | 'timeout'
  | 'reset'
  | { status: number; headers?: Record<string, string>; body?: string }
  /** Leaves the contexts of these keys out. */
  | { omit: string[] }
  /** Gives these keys a context that does not fit: `{name: 17}`, or what is given. */
  | { misfit: string[]; context?: unknown }
  /** 200 and no JSON. */
  | 'garbage'
  /** 200 and more than the workers read. */
  | 'huge';

/** `timesSeen` counts the requests with the same webhook-id, this one included. */
export type Plan = (request: ContextRequest, timesSeen: number) => Conduct;

export interface JournalEntry {
  /** webhook-id */
  id: string;
  send_id: string;
  chunk: number;
  /** source_object_keys, in the order they were asked for. */
  keys: string[];
  conduct: Conduct;
}

export interface ProviderOptions {
  /** The client's; may change later. */
  secret: string;
  plan?: Plan;
  contextOf?: (recipient: ContextRequest['recipients'][number]) => unknown;
}

const HUGE_BYTES = 17 * 1024 * 1024;

export class ContextProvider {
  /** Every request whose signature was right. */
  readonly journal: JournalEntry[] = [];
  /** Requests that were refused because their signature was wrong. */
  refused = 0;
  /** Most requests under way at once. */
  mostAtOnce = 0;
  url = '';
  secret: string;
  plan: Plan;
  contextOf: NonNullable<ProviderOptions['contextOf']>;
  readonly #asked = new Map<string, number>();
  readonly #answered = new Map<string, number>();
  #underWay = 0;
  readonly #server = createServer((request, response) => {
    this.#underWay += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.#underWay);
    response.once('close', () => (this.#underWay -= 1));
    this.#answer(request, response).catch(() => response.destroy()); // the asker has left
  });

  constructor({
    secret,
    plan = () => 'ok',
    contextOf = ({ source_object_key: name }) => ({ name }),
  }: ProviderOptions) {
    this.secret = secret;
    this.plan = plan;
    this.contextOf = contextOf;
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/contexts`;
    return this;
  }

  stop(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  /** How often a webhook-id was asked for, and how often it was given contexts (200). */
  countOf(id: string): { asked: number; answered: number } {
    return { asked: this.#asked.get(id) ?? 0, answered: this.#answered.get(id) ?? 0 };
  }

  /** The webhook-ids that were seen. */
  get ids(): string[] {
    return [...this.#asked.keys()];
  }

  /** How often a member's context was asked for, by its key. */
  countByKey(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const { keys } of this.journal)
      for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
    return counts;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const text = Buffer.concat(parts).toString();
    let asked: ContextRequest;
    try {
      const headers = request.headers as Record<string, string>;
      asked = new Webhook(this.secret).verify(text, headers) as ContextRequest;
    } catch (error) {
      this.refused += 1;
      response.writeHead(401).end((error as Error).message);
      return;
    }
    const id = request.headers['webhook-id'] as string;
    const timesSeen = count(this.#asked, id);
    const conduct = this.plan(asked, timesSeen);
    this.journal.push({
      id,
      send_id: asked.send_id,
      chunk: asked.chunk,
      keys: asked.recipients.map((one) => one.source_object_key),
      conduct,
    });
    if (conduct === 'timeout') return;
    if (conduct === 'reset') return void request.socket.resetAndDestroy();
    if (conduct === 'garbage') return void response.end('<html>It works!</html>');
    if (conduct === 'huge') {
      return void response.end(JSON.stringify({ contexts: { a: 'a'.repeat(HUGE_BYTES) } }));
    }
    if (typeof conduct === 'object' && 'status' in conduct) {
      return void response.writeHead(conduct.status, conduct.headers).end(conduct.body);
    }
    response.once('finish', () => count(this.#answered, id));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ contexts: this.#contextsFor(asked, conduct) }));
  }

  #contextsFor({ recipients }: ContextRequest, conduct: Exclude<Conduct, string> | 'ok') {
    const contexts = new Map(
      recipients.map((one) => [one.source_object_key, this.contextOf(one)] as const),
    );
    if (conduct !== 'ok' && 'omit' in conduct) for (const key of conduct.omit) contexts.delete(key);
    if (conduct !== 'ok' && 'misfit' in conduct) {
      const { misfit, context = { name: 17 } } = conduct;
      for (const key of misfit) if (contexts.has(key)) contexts.set(key, context);
    }
    return Object.fromEntries(contexts);
  }
}

function count(counts: Map<string, number>, id: string): number {
  const seen = (counts.get(id) ?? 0) + 1;
  counts.set(id, seen);
  return seen;
}
