// One run of the model test: does step after step to the product and to every world that may be true, and
// holds what is seen to them. Calls at once may have taken effect in any order: each order that explains
// all answers is a world, and the next look at the database leaves only those that fit. Worlds run out
// where no order explains what is seen; then the product is wrong.
/* oxlint-disable vitest/no-standalone-expect -- its methods run in tests */
import { expect } from 'vitest';
import { ContextProvider } from '../context-provider.ts';
import { deleteEverything } from '../database.ts';
import { FaultySink } from '../faulty-sink.ts';
import { expectLaw, FAST, type Api, type Harness } from '../harness.ts';
import { startWorkerProcess, type Process } from '../processes.ts';
import { until } from '../until.ts';
import { makeCall, resolveCall } from './make-call.ts';
import { OMITTED, type Call, type DrawnCall, type Step } from './calls.ts';
import { observe, type Observation, type SeenSend } from './observe.ts';
import { World } from './world.ts';
import { checkMails, checkMessages, type Ledger } from './check.ts';
import { catchUp, misfitOf } from './fit.ts';

const PROCESS_TIMING = {
  HEARTBEAT_SECONDS: '0.3',
  DEAD_AFTER_SECONDS: '2',
  RETRY_DELAYS: '0.1',
  RETRY_URGENT_DELAYS: '0.1',
  GREYLIST_SECONDS: '0.01',
  CALLBACK_ALLOW: '127.0.0.0/8',
};

export class ModelRun {
  readonly #h: Harness;
  readonly #sink: FaultySink;
  readonly #provider: ContextProvider;
  readonly #client: { api: Api; key: string };
  /** Workers are processes. */
  readonly #kills: boolean;
  #worlds: World[] = [new World()];
  /** Those that were true since the step before, and since the worker began. */
  #lately: World[] = [];
  #sinceStart: World[] = [];
  #seen: Observation = { sends: [], rows: [], people: [], suppressions: [] };
  #worker: { stop(): Promise<unknown> } | undefined;
  #killed = false;
  readonly #ledger: Ledger = { keys: new Map(), addresses: new Map() };

  private constructor(
    h: Harness,
    sink: FaultySink,
    provider: ContextProvider,
    client: { api: Api; key: string },
    kills: boolean,
  ) {
    this.#h = h;
    this.#sink = sink;
    this.#provider = provider;
    this.#client = client;
    this.#kills = kills;
  }

  static async of(
    h: Harness,
    steps: readonly Step[],
    { kills = false }: { kills?: boolean } = {},
  ): Promise<void> {
    await deleteEverything(h.database.pool);
    const client = await h.newClient('acme');
    await client.api('PUT', '/api/senders/courses', { email: 'courses@school.example' });
    for (const list of ['a', 'b']) await client.api('PUT', `/api/recipient-lists/${list}`, {});
    const { rows } = await h.database.pool.query('select callback_secret as secret from clients');
    const provider = await new ContextProvider({ secret: rows[0].secret }).start();
    const sink = await new FaultySink().start();
    sink.misbehave('rcpt', { reply: '550 5.1.1 no such user' }, { to: /^bounce@/iu });
    sink.misbehave('rcpt', { reply: '550 5.7.1 policy' }, { to: /^refused@/iu });
    sink.misbehave('rcpt', { reply: '450 4.2.1 later' }, { to: /^greylisted@/iu, onceEach: true });
    sink.misbehave('dot', 'vanish', { to: /^vanish@/iu });
    // Accepted, and the answer still to come: what a kill leaves in doubt.
    sink.misbehave('dot', { delayMs: 20 }, kills ? {} : { to: /^slow@/iu });
    const run = new ModelRun(h, sink, provider, client, kills);
    try {
      for (const step of steps) await run.#take(step);
      await run.#end();
    } finally {
      // Where it fails the run has failed, and says why.
      await run.#worker?.stop().catch(() => undefined);
      await Promise.all([provider.stop(), sink.stop()]);
    }
  }

  async #take(step: Step): Promise<void> {
    switch (step.step) {
      case 'call':
        return this.#together([step.call]);
      case 'together':
        return this.#together(step.calls);
      case 'start':
        return this.#working(async () => {}, { stays: true });
      case 'stop':
        return this.#working(async () => {});
      case 'work':
        return this.#working(() => this.#untilSettled(step.settled));
      case 'drain':
        return this.#working(() => this.#untilDrained());
      case 'kill':
        return this.#kill(step.taken);
      case 'omit':
        return this.#change(
          (world) => (world.omits = step.omits),
          async () => {
            this.#provider.plan = () => (step.omits ? { omit: OMITTED } : 'ok');
          },
        );
      case 'due':
        return this.#change(
          (world) => world.sends.forEach((send) => (send.scheduled = false)),
          async () => {
            await this.#h.database.pool.query(
              "update sends set scheduled_at = now() - interval '1 s' where scheduled_at > now()",
            );
          },
        );
    }
  }

  /** Everything comes to its end, what has failed once more, and is compared with what the API says. */
  async #end(): Promise<void> {
    await this.#take({ step: 'due' });
    await this.#callWhere('resume', ({ state }) => state === 'paused');
    await this.#take({ step: 'drain' });
    await this.#take({ step: 'omit', omits: false });
    await this.#callWhere(
      'retry-failed',
      ({ state, counts }) => state === 'completed' && counts.failed! > 0,
    );
    await this.#take({ step: 'drain' });
    for (const send of this.#seen.sends) {
      expect(send.is_completed, send.send_key).toBe(true);
      const { body } = await this.#client.api('GET', `/api/sends/${send.id}`);
      expect(body.send.counts).toEqual(send.counts);
    }
  }

  async #callWhere(action: 'resume' | 'retry-failed', which: (send: SeenSend) => boolean) {
    for (const [nth, send] of this.#seen.sends.entries())
      if (which(send)) await this.#together([{ do: action, nth }]);
  }

  /** Calls at once; every order of them is tried on every world. */
  async #together(drawn: readonly DrawnCall[]): Promise<void> {
    const calls = await Promise.all(
      withoutTwins(drawn).map((one) =>
        resolveCall(this.#h, one, {
          seen: this.#seen,
          callbackUrl: this.#provider.url,
          person: 'email' in one ? this.#worlds[0]!.idOf(one.email) : '',
        }),
      ),
    );
    const wasWorking = this.#worker !== undefined;
    const answers = await Promise.all(
      calls.map((call) => makeCall(this.#h, this.#client, call, this.#seen)),
    );
    const passed = new Map<string, World>();
    const after = new Map<string, World>();
    const retries = new Set(
      calls.flatMap((call) => (call.do === 'retry-failed' && call.send ? [call.send] : [])),
    );
    const facts = {
      completed: (send: string) => {
        const isCompleted = this.#seen.sends.some(
          (one) => one.send_key === send && one.state === 'completed',
        );
        if (isCompleted) return retries.has(send) ? ('maybe' as const) : ('yes' as const);
        return wasWorking ? ('maybe' as const) : ('no' as const);
      },
      bounces: (email: string) => wasWorking && email.startsWith('bounce@'),
    };
    const walk = (world: World, left: readonly number[]) => {
      passed.set(world.state(), world);
      if (left.length === 0) after.set(world.state(), world);
      for (const index of left) {
        for (const next of world.apply(calls[index]!, answers[index]!.said, facts))
          walk(
            next,
            left.filter((one) => one !== index),
          );
      }
    };
    for (const world of this.#worlds) walk(world, [...calls.keys()]);
    expect(after.size, `an order of ${show(calls, answers)}`).toBeGreaterThan(0);
    const before = this.#seen;
    await this.#look([...passed.values()], [...after.values()], retries);
    if (!wasWorking) this.#expectRetried(calls, answers, before);
  }

  /** Nobody else moves messages: what calls have queued again is what they have said. */
  #expectRetried(calls: Call[], answers: { retried: number }[], before: Observation): void {
    const failed = (seen: Observation, key: string) =>
      seen.sends.find((one) => one.send_key === key)?.counts.failed ?? 0;
    const retries = calls.flatMap((call, index) =>
      call.do === 'retry-failed' && call.send
        ? [{ send: call.send, retried: answers[index]!.retried }]
        : [],
    );
    for (const send of new Set(retries.map((one) => one.send))) {
      const said = retries.filter((one) => one.send === send);
      const retried = said.reduce((sum, one) => sum + one.retried, 0);
      expect(failed(before, send) - failed(this.#seen, send), `retried of ${send}`).toBe(retried);
    }
  }

  /** With a worker; it goes on where it `stays`. */
  async #working(wait: () => Promise<void>, { stays = false } = {}): Promise<void> {
    this.#worker ??= await this.#startWorker();
    await wait();
    if (!stays) {
      await this.#worker.stop();
      await this.#look(this.#worlds);
      this.#worker = undefined;
    }
    return this.#look(this.#worlds);
  }

  async #startWorker(): Promise<{ stop(): Promise<unknown> }> {
    this.#sinceStart = this.#worlds;
    if (this.#kills) return this.#startProcess();
    const worker = await this.#h.startWorker({
      smtpUrl: this.#sink.url,
      timing: { ...FAST, retry: { ...FAST.retry, window: 3600 } },
    });
    return { stop: () => worker.close() };
  }

  #startProcess(): Process {
    return startWorkerProcess({
      DATABASE_URL: this.#h.database.url,
      SMTP_URL: this.#sink.url,
      PUBLIC_URL: this.#h.url,
      CALLBACK_PORTS: new URL(this.#provider.url).port,
      ...PROCESS_TIMING,
    });
  }

  async #kill(taken: number): Promise<void> {
    await this.#worker?.stop();
    this.#sinceStart = this.#worlds;
    const worker = this.#startProcess();
    this.#worker = worker;
    const enough = this.#sink.journal.accepted + taken;
    await until(
      'mails, or nothing left to do',
      async () => this.#sink.journal.accepted >= enough || this.#isDrained(),
    );
    await worker.kill();
    this.#killed = true;
    await this.#look(this.#worlds);
    this.#worker = undefined;
  }

  async #change(change: (world: World) => void, make: () => Promise<void>): Promise<void> {
    await make();
    const after = this.#worlds.map((world) => {
      const changed = world.clone();
      change(changed);
      return changed;
    });
    await this.#look([...this.#worlds, ...after], after);
  }

  async #untilSettled(more: number): Promise<void> {
    const settled = async () => {
      const { rows } = await this.#h.database.pool.query(
        'select count(*)::integer as settled from messages where settled_at is not null',
      );
      return rows[0].settled as number;
    };
    const enough = (await settled()) + more;
    await until(
      'so many to be settled',
      async () => (await settled()) >= enough || this.#isDrained(),
    );
  }

  async #untilDrained(): Promise<void> {
    await until('nothing to be left to do', () => this.#isDrained());
  }

  async #isDrained(): Promise<boolean> {
    const { rows } = await this.#h.database.pool.query(
      `select from sends where completed_at is null and state <> 'paused'
         and not (state = 'scheduled' and scheduled_at > now()) limit 1`,
    );
    return rows.length === 0;
  }

  /** Looks at everything, and keeps the worlds that fit. `passed` were true since the last look. */
  async #look(
    passed: World[],
    after: World[] = passed,
    retries: ReadonlySet<string> = new Set(),
  ): Promise<void> {
    await expectLaw(this.#h.database);
    const seen = await observe(this.#h.database.pool);
    const worked = this.#worker !== undefined;
    const caughtUp = after.map((world) => catchUp(world, seen, worked));
    const fitting = caughtUp.filter((world) => misfitOf(world, seen) === undefined);
    const misfits = caughtUp.map((world) => misfitOf(world, seen));
    expect(fitting.length, `worlds that fit: ${misfits.join(' | ')}`).toBeGreaterThan(0);
    this.#worlds = [...new Map(fitting.map((world) => [world.state(), world])).values()];
    const since = [...passed, ...this.#worlds];
    this.#sinceStart = [...this.#sinceStart, ...since];
    checkMessages(this.#ledger, {
      passed: [...this.#lately, ...since],
      sinceStart: this.#sinceStart,
      before: this.#seen,
      seen,
      worked,
      killed: this.#killed,
      retries,
    });
    this.#lately = worked ? since : [];
    this.#seen = seen;
    if (!worked) checkMails(this.#sink.journal, this.#ledger, seen, this.#worlds[0]!);
  }
}

/** Erasing twice at once says twice that it was done, which no order explains and nobody minds. */
function withoutTwins(calls: readonly DrawnCall[]): DrawnCall[] {
  const erased = new Set<string>();
  return calls.filter((call) => {
    if (call.do !== 'erase') return true;
    const isTwin = erased.has(call.email);
    erased.add(call.email);
    return !isTwin;
  });
}

function show(calls: readonly Call[], answers: readonly { said: string }[]): string {
  return calls
    .map((call, index) => `${JSON.stringify(call)} -> ${answers[index]!.said}`)
    .join('; ');
}
