// Tasks deliver_urgent and deliver_singles: single emails, one SMTP transaction each; with an unsubscribe
// link, which is personal, one per recipient. Urgent ones go over connections of their own, one job each;
// the others are claimed by priority, then age, a few at a time, so that one that arrives later with a
// better priority is next.
import { randomUUID } from 'node:crypto';
import { sql, type RawBuilder } from 'kysely';
import { readAttachments } from '../emails-queue/attachments.ts';
import type { MessageRef } from '../queue.ts';
import { envelopeAddress } from '../address.ts';
import type { Attachment } from '../smtp/compose.ts';
import { outcomeFor, type Outcome } from '../smtp/signal.ts';
import type { SenderRule } from '../smtp/choices.ts';
import type { Place, Transports } from '../smtp/transports.ts';
import { untilAnswered } from './batch-writer.ts';
import { composeSingle } from './compose-single.ts';
import { deliverWhileDue, scheduleRetry, type Delivery } from './delivery.ts';
import {
  anySingle,
  anyUrgent,
  claimSingles,
  handBackSingles,
  isServed,
  putOffSingles,
  thisSingle,
  type ClaimedSingle,
  type SingleRecipient,
} from './claim-single.ts';
import { URGENT_PRIORITY } from './create-single.ts';

export async function deliverUrgent(delivery: Delivery, ref: MessageRef): Promise<void> {
  const { urgent } = delivery;
  const which = sql<boolean>`${thisSingle(ref)} and ${hasTemplate(delivery)}`;
  const giveWay = delivery.turns.takeFirst();
  try {
    let found = 0;
    const waitSeconds = await deliverWhileDue(
      delivery,
      urgent,
      { most: 1, total: 1 },
      async (places, rule) => {
        const one = await claim(delivery, which, places, rule);
        found += one.claimed.length + one.skipped;
        return one;
      },
      (email, place) => deliverEmail(delivery, email, place, giveWay),
    );
    if (found === 0) {
      const all = sql<boolean>`${anyUrgent} and ${hasTemplate(delivery)}`;
      await putOffUnserved(delivery, urgent, all, waitSeconds);
      if (waitSeconds === undefined) await warnOfMissingTemplates(delivery);
    }
  } finally {
    giveWay();
  }
}

export async function deliverSingles(delivery: Delivery): Promise<void> {
  const { singles } = delivery;
  const which = sql<boolean>`${anySingle} and ${hasTemplate(delivery)}`;
  const waitSeconds = await deliverWhileDue(
    delivery,
    singles,
    { most: singles.size },
    (places, rule) => claim(delivery, which, places, rule),
    (email, place) => deliverEmail(delivery, email, place),
  );
  await putOffUnserved(delivery, singles, which, waitSeconds);
  await warnOfMissingTemplates(delivery);
}

async function claim(
  { db, log, worker }: Delivery,
  which: RawBuilder<boolean>,
  places: number,
  rule: SenderRule,
): ReturnType<typeof claimSingles> {
  const claimId = randomUUID();
  try {
    return await claimSingles(db, worker, claimId, sql`${which} and ${isServed(rule)}`, places);
  } catch (error) {
    await untilAnswered(
      () => db.transaction().execute((trx) => handBackSingles(trx, worker, claimId)),
      (message) => log.error({ error: message }, 'emails not handed back yet'),
    );
    throw error;
  }
}

/** Of a recipient whose place could not be asked for. */
const DATABASE_WAIT_SECONDS = 1;
/** Nobody serves a sender before the configuration changes. */
const UNSERVED_SECONDS = 60;

/**
 * What is due and could not be claimed, as its mail server takes nothing now, gets a due time: it wakes
 * a job then, and those that are served need not be looked for among it.
 */
async function putOffUnserved(
  { db, stopping }: Delivery,
  transports: Transports,
  which: RawBuilder<boolean>,
  waitSeconds = UNSERVED_SECONDS,
): Promise<void> {
  const rules = transports.openRules();
  if (stopping.aborted || rules.some((rule) => !rule.patterns && rule.except.length === 0)) return;
  const served = rules.length > 0 ? sql.join(rules.map(isServed), sql` or `) : sql`false`;
  await putOffSingles(db, sql`${which} and not (${served})`, waitSeconds);
}

/** As with list mail: an email waits for a worker that has the template it was accepted with. */
function hasTemplate({ templates }: Delivery) {
  const versions = [...templates.values()].map((template) => template.version);
  return sql<boolean>`e.template_version = any (${versions}::text[])`;
}

async function warnOfMissingTemplates(delivery: Delivery): Promise<void> {
  const { rows } = await sql<{ template_key: string; template_version: string }>`
    select e.template_key, e.template_version from single_emails e
    where e.queue_state = 'due' and not (${hasTemplate(delivery)}) limit 1
  `.execute(delivery.db);
  if (rows[0]) {
    delivery.log.warn(
      rows[0],
      'this worker does not have the template version of an email; it stays queued',
    );
  }
}

/** What became of one recipient; a held one is worth another try after so many seconds. */
interface Attempted {
  outcome: Outcome;
  waitSeconds: number;
}

/** `answered` is called when the mail server has answered, before that is recorded. */
async function deliverEmail(
  delivery: Delivery,
  email: ClaimedSingle,
  place: Place,
  answered?: () => void,
): Promise<void> {
  const { db, log } = delivery;
  const envelope = email.recipients.filter((recipient) => recipient.state === 'queued');
  try {
    const attachments = await untilAnswered(
      () => readAttachments(db, email),
      (message) => log.error({ error: message }, 'attachments not read yet'),
    );
    const attempted = await (
      email.requires_consent
        ? attemptEach(delivery, email, attachments, place, envelope)
        : attempt(delivery, email, attachments, place, envelope)
    ).finally(answered);
    await record(delivery, email, envelope, attempted);
  } finally {
    // Not before it is recorded: a crash leaves no more unknown than there are places.
    place.release();
  }
}

/**
 * Mail with a way out carries each recipient's own: one SMTP transaction each, one after the other, each
 * with a place of its own. What became of one is recorded before the next one's turn.
 */
async function attemptEach(
  delivery: Delivery,
  email: ClaimedSingle,
  attachments: Attachment[],
  place: Place,
  envelope: SingleRecipient[],
): Promise<Attempted[]> {
  const attempted: Attempted[] = [];
  for (const recipient of envelope) {
    const stop =
      attempted.length > 0 && (await betweenTwo(delivery, email, place, envelope, attempted));
    if (stop) return [...attempted, ...envelope.slice(attempted.length).map(() => stop)];
    attempted.push(...(await attempt(delivery, email, attachments, place, [recipient])));
  }
  return attempted;
}

/** Records the last one and takes the next place; where there is none, what becomes of the others. */
async function betweenTwo(
  delivery: Delivery,
  email: ClaimedSingle,
  place: Place,
  envelope: SingleRecipient[],
  attempted: Attempted[],
): Promise<Attempted | undefined> {
  const at = attempted.length - 1;
  await record(delivery, email, [envelope[at]!], [attempted[at]!], true);
  const hold = (reply: string, waitSeconds: number): Attempted => ({
    outcome: { kind: 'held', reason: 'slowed', reply },
    waitSeconds,
  });
  if (delivery.stopping.aborted) return hold('the worker was stopped', 0);
  const none = await place
    .next(email.sender_email)
    .catch(() => ({ waitSeconds: DATABASE_WAIT_SECONDS }));
  return none && hold('no mail server takes it now', none.waitSeconds);
}

async function record(
  { retry, singleOutcomes }: Delivery,
  email: ClaimedSingle,
  recipients: SingleRecipient[],
  attempted: Attempted[],
  more = false,
): Promise<void> {
  const { client_id, message_id } = email;
  const scheduled = attempted.map(({ outcome, waitSeconds }) =>
    scheduleRetry(outcome, retry, email, {
      urgent: email.priority_level === URGENT_PRIORITY,
      seed: email.claimed_at.getTime(),
      onUnknown: email.on_unknown,
      waitSeconds,
    }),
  );
  await singleOutcomes.add({
    client_id,
    message_id,
    recipients: scheduled.map(({ outcome, retryIn }, index) => ({
      ordinal: recipients[index]!.ordinal,
      outcome,
      again: retryIn !== undefined,
    })),
    retryIn: scheduled.find((one) => one.retryIn !== undefined)?.retryIn,
    more,
  });
}

/** One SMTP transaction; what became of each of `recipients`, in their order. */
async function attempt(
  delivery: Delivery,
  email: ClaimedSingle,
  attachments: Attachment[],
  place: Place,
  recipients: SingleRecipient[],
): Promise<Attempted[]> {
  let raw: Buffer;
  try {
    raw = await composeSingle(delivery, email, attachments, recipients);
  } catch (error) {
    const { message_id, template_key } = email;
    delivery.log.error(
      { message_id, template_key, error: (error as Error).message },
      'not rendered',
    );
    const reply = 'the template could not be rendered';
    const outcome = { kind: 'failed', reason: 'render_failed', reply, suppress: false } as const;
    return recipients.map(() => ({ outcome, waitSeconds: 0 }));
  }
  const to = recipients.map((recipient) => envelopeAddress(recipient.email_given));
  const { signal, waitSeconds } = await place.send({ sender: email.sender_email, to, raw });
  return to.map((address) => ({ outcome: outcomeFor(signal, address), waitSeconds }));
}
