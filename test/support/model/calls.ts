// The calls of the model test as data, and what they are drawn from: few keys, people, lists and sends, so
// that they meet often. How the mail server treats a person stands in their address.
import fc from 'fast-check';
import type { Given } from './list.ts';
import type { Template } from './world.ts';

/** The server has never heard of bounce@, refuses refused@, wants greylisted@ once more, hangs up on vanish@. */
export const EMAILS = [
  'ada@l.example',
  'bea@l.example',
  'cid@l.example',
  'dan@l.example',
  'eva@l.example',
  'fay@l.example',
  'gil@l.example',
  'bounce@l.example',
  'refused@l.example',
  'greylisted@l.example',
  'vanish@l.example',
  'slow@l.example',
];
const KEYS = Array.from({ length: 12 }, (_, n) => `k${n + 1}`);
/** Their contexts are left out while the callback omits. */
export const OMITTED = ['k1', 'k2', 'k3'];
export const LISTS = ['a', 'b'];
const SENDS = Array.from({ length: 15 }, (_, n) => `s${n + 1}`);
const PAST = '2026-01-01T00:00:00Z';
const FUTURE = '2199-01-01T00:00:00Z';

export interface TriggerBody {
  send_key: string;
  template_key: string;
  shared_context: object;
  requires_consent?: true;
  scheduled_at?: string;
  recipient_context?: Record<string, object>;
  context_callback?: { url: string; chunk_size: number };
}

/** As drawn: contexts, addresses and links are those of the moment when it is called. */
type DrawnTrigger = {
  do: 'trigger';
  send: string;
  list: string;
  template: Template;
  contexts: 'none' | 'inline' | 'stray' | number;
  when: 'now' | 'past' | 'later';
};
type DrawnUnsubscribe = { do: 'unsubscribe'; email: string; list: string; scope: 'list' | 'all' };

type Plain =
  | { do: 'put'; list: string; member: Given }
  | { do: 'bulk'; list: string; members: Given[] }
  | { do: 'import'; list: string; format: 'csv' | 'ndjson'; members: Given[] }
  | { do: 'reconcile'; list: string; members: Given[]; remove_absent?: boolean; dry_run?: boolean }
  | { do: 'remove'; list: string; key: string }
  | { do: 'suppress'; email: string; reason: 'hard_bounce' | 'complaint' | 'manual' }
  | { do: 'unsuppress'; email: string }
  | { do: 'erase'; email: string };

type Control = { do: 'pause' | 'resume' | 'cancel' | 'retry-failed' };

export type DrawnCall = Plain | DrawnTrigger | DrawnUnsubscribe | (Control & { nth: number });
export type Call =
  | Plain
  | (Control & { send: string | undefined })
  | (DrawnTrigger & { body: TriggerBody })
  /** Nobody has a link who is no contact. */
  | (DrawnUnsubscribe & { person: string; link: string | undefined });

const TEMPLATES: Record<Template, Omit<TriggerBody, 'send_key'>> = {
  score: {
    template_key: 'homework-score-published',
    shared_context: { course_title: 'C', homework_title: 'H' },
  },
  'score with consent': {
    template_key: 'homework-score-published',
    shared_context: { course_title: 'C', homework_title: 'H' },
    requires_consent: true,
  },
  newsletter: { template_key: 'course-newsletter', shared_context: { title: 'T', body: 'B' } },
};

export function bodyOf(
  { send, template, contexts, when }: DrawnTrigger,
  activeKeys: string[],
  callbackUrl: string,
): TriggerBody {
  const keys = contexts === 'stray' ? [...activeKeys, 'nobody'] : activeKeys;
  return {
    send_key: send,
    ...TEMPLATES[template],
    ...(when !== 'now' && { scheduled_at: when === 'past' ? PAST : FUTURE }),
    ...(typeof contexts === 'number'
      ? { context_callback: { url: callbackUrl, chunk_size: contexts } }
      : contexts !== 'none' && {
          recipient_context: Object.fromEntries(keys.map((key) => [key, { name: `for ${key}` }])),
        }),
  };
}

const key = fc.constantFrom(...KEYS);
const list = fc.constantFrom(...LISTS);
const email = fc.constantFrom(...EMAILS);
const send = fc.constantFrom(...SENDS);
const given: fc.Arbitrary<Given> = fc.record(
  {
    source_object_key: key,
    email: fc.oneof(
      { weight: 5, arbitrary: email },
      { weight: 1, arbitrary: email.map((text) => text.toUpperCase()) },
    ),
    name: fc.constantFrom('N', 'M'),
    consent: fc.constantFrom('subscribed', 'subscribed', 'pending', 'unsubscribed'),
  },
  { requiredKeys: ['source_object_key', 'email'] },
);
/** A person for each key, mostly: a list that can be mailed. */
const everybody: fc.Arbitrary<Given[]> = fc
  .subarray(EMAILS, { minLength: 3 })
  .map((some) =>
    some.map((one) => ({ source_object_key: `k${EMAILS.indexOf(one) + 1}`, email: one })),
  );
const members = fc.oneof(
  { weight: 1, arbitrary: fc.array(given, { maxLength: 8 }) },
  { weight: 2, arbitrary: everybody },
);
/** Of those that were triggered. */
const nth = fc.nat({ max: 14 });

const call = (name: DrawnCall['do'], fields: Record<string, fc.Arbitrary<unknown>>) =>
  fc.record({ do: fc.constant(name), ...fields }) as unknown as fc.Arbitrary<DrawnCall>;

const trigger = call('trigger', {
  send,
  list,
  template: fc.constantFrom<Template>('score', 'score with consent', 'newsletter'),
  contexts: fc.constantFrom<DrawnTrigger['contexts']>(
    ...(['none', 'none', 'inline', 'inline', 'inline', 'stray'] as const),
    1,
    3,
    5,
  ),
  when: fc.constantFrom<DrawnTrigger['when']>('now', 'now', 'now', 'now', 'past', 'later'),
});
const weighted = (weight: number, arbitrary: fc.Arbitrary<unknown>) => ({
  weight,
  arbitrary: arbitrary as fc.Arbitrary<DrawnCall>,
});

export const anyCall: fc.Arbitrary<DrawnCall> = fc.oneof(
  weighted(2, call('put', { list, member: given })),
  weighted(4, call('bulk', { list, members })),
  weighted(2, call('import', { list, members, format: fc.constantFrom('csv', 'ndjson') })),
  weighted(
    2,
    fc.record(
      {
        do: fc.constant('reconcile' as const),
        list,
        members,
        remove_absent: fc.boolean(),
        dry_run: fc.boolean(),
      },
      { requiredKeys: ['do', 'list', 'members'] },
    ),
  ),
  weighted(2, call('remove', { list, key })),
  weighted(8, trigger),
  weighted(2, call('unsubscribe', { email, list, scope: fc.constantFrom('list', 'all') })),
  weighted(
    2,
    call('suppress', { email, reason: fc.constantFrom('hard_bounce', 'complaint', 'manual') }),
  ),
  weighted(1, call('unsuppress', { email })),
  weighted(2, call('pause', { nth })),
  weighted(2, call('resume', { nth })),
  weighted(2, call('cancel', { nth })),
  weighted(3, call('retry-failed', { nth })),
  weighted(2, call('erase', { email })),
);

export type Step =
  | { step: 'call'; call: DrawnCall }
  | { step: 'together'; calls: DrawnCall[] }
  /** A worker until so many more members are settled, or nothing is left to do. */
  | { step: 'work'; settled: number }
  | { step: 'start' | 'stop' | 'drain' | 'due' }
  | { step: 'omit'; omits: boolean }
  /** A worker process until the mail server has taken so many more, then SIGKILL. */
  | { step: 'kill'; taken: number };

const step = (name: Step['step'], fields: Record<string, fc.Arbitrary<unknown>>) =>
  fc.record({ step: fc.constant(name), ...fields }) as unknown as fc.Arbitrary<Step>;

export function stepsOf({ most, kills }: { most: number; kills: boolean }): fc.Arbitrary<Step[]> {
  const count = fc.integer({ min: 0, max: 8 });
  const one = fc.oneof(
    { weight: 24, arbitrary: step('call', { call: anyCall }) },
    {
      weight: 8,
      arbitrary: step('together', { calls: fc.array(anyCall, { minLength: 2, maxLength: 3 }) }),
    },
    { weight: 5, arbitrary: step('work', { settled: count }) },
    { weight: 2, arbitrary: step('start', {}) },
    { weight: 1, arbitrary: step('stop', {}) },
    { weight: 1, arbitrary: step('drain', {}) },
    { weight: 1, arbitrary: step('due', {}) },
    { weight: 1, arbitrary: step('omit', { omits: fc.boolean() }) },
    ...(kills ? [{ weight: 6, arbitrary: step('kill', { taken: count }) }] : []),
  );
  // Without the bias to short ones that the first runs of a property have.
  const filled = LISTS.map((key) =>
    step('call', { call: call('bulk', { list: fc.constant(key), members: everybody }) }),
  );
  return fc.noBias(
    fc
      .tuple(...filled, fc.array(one, { maxLength: most, size: 'max' }))
      .map((drawn) => drawn.flat()),
  );
}
