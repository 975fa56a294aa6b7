// Tasks deliver_urgent and deliver_singles: single emails, one SMTP transaction each. Urgent ones go
// over connections of their own, one job each; the others are claimed by priority, then age, a few at
// a time, so that one that arrives later with a better priority is next.
import { randomUUID } from 'node:crypto';
import { sql, type RawBuilder } from 'kysely';
import { readAttachments } from '../emails-queue/attachments.ts';
import type { MessageRef } from '../queue.ts';
import { envelopeAddress } from '../address.ts';
import { compose, messageIdOf, type Attachment } from '../smtp/compose.ts';
import { outcomeFor, type Outcome } from '../smtp/signal.ts';
import type { Place, SenderRule, Transports } from '../smtp/transports.ts';
import { splitContexts } from '../templates/registry.ts';
import { headerText, renderTemplate } from '../templates/render.ts';
import { untilAnswered } from './batch-writer.ts';
import { deliverWhileDue, scheduleRetry, type Delivery } from './delivery.ts';
import {
  anySingle,
  anyUrgent,
  claimSingles,
  handBackSingles,
  isServed,
  putOffSingles,
  thisSingle,
  URGENT_PRIORITY,
  type ClaimedSingle,
  type RecipientKind,
} from './single.ts';

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

/** `answered` is called when the mail server has answered, before that is recorded. */
async function deliverEmail(
  delivery: Delivery,
  email: ClaimedSingle,
  place: Place,
  answered?: () => void,
): Promise<void> {
  const { client_id, message_id } = email;
  const envelope = email.recipients.filter((recipient) => recipient.state === 'queued');
  const addresses = envelope.map((recipient) => recipient.email_given);
  try {
    const { outcomes, waitSeconds } = await attempt(delivery, email, place, addresses).finally(
      answered,
    );
    const scheduled = outcomes.map((outcome) =>
      scheduleRetry(outcome, delivery.retry, email, {
        urgent: email.priority_level === URGENT_PRIORITY,
        seed: email.claimed_at.getTime(),
        onUnknown: email.on_unknown,
        waitSeconds,
      }),
    );
    await delivery.singleOutcomes.add({
      client_id,
      message_id,
      recipients: scheduled.map(({ outcome, retryIn }, index) => ({
        ordinal: envelope[index]!.ordinal,
        outcome,
        again: retryIn !== undefined,
      })),
      retryIn: scheduled.find((one) => one.retryIn !== undefined)?.retryIn,
    });
  } finally {
    // Not before it is recorded: a crash leaves no more unknown than there are places.
    place.release();
  }
}

/** One SMTP transaction; an outcome for each of `addresses`, in their order. */
async function attempt(
  delivery: Delivery,
  email: ClaimedSingle,
  place: Place,
  addresses: string[],
): Promise<{ outcomes: Outcome[]; waitSeconds: number }> {
  const { db, log } = delivery;
  const attachments = await untilAnswered(
    () => readAttachments(db, email),
    (message) => log.error({ error: message }, 'attachments not read yet'),
  );
  let raw: Buffer;
  try {
    raw = await composeEmail(delivery, email, attachments);
  } catch (error) {
    const { message_id, template_key } = email;
    log.error({ message_id, template_key, error: (error as Error).message }, 'not rendered');
    const reply = 'the template could not be rendered';
    const failed = { kind: 'failed', reason: 'render_failed', reply, suppress: false } as const;
    return { outcomes: addresses.map(() => failed), waitSeconds: 0 };
  }
  const to = addresses.map(envelopeAddress);
  const { signal, waitSeconds } = await place.send({ sender: email.sender_email, to, raw });
  return { outcomes: to.map((address) => outcomeFor(signal, address)), waitSeconds };
}

/** To and Cc stand in the headers, Bcc in the envelope only. */
async function composeEmail(
  { templates }: Delivery,
  email: ClaimedSingle,
  attachments: Attachment[],
): Promise<Buffer> {
  const template = templates.get(email.template_key)!;
  const content = await renderTemplate(template, splitContexts(template, email.email_data));
  const visible = (kind: RecipientKind) =>
    email.recipients
      .filter((recipient) => recipient.kind === kind)
      .map((recipient) => ({ address: recipient.email_given }));
  return compose({
    messageId: messageIdOf(email.message_id, email.sender_email),
    date: email.claimed_at,
    from: { name: email.sender_name, address: email.sender_email },
    replyTo: email.sender_reply_to,
    to: visible('to'),
    cc: visible('cc'),
    content: email.subject === null ? content : { ...content, subject: headerText(email.subject) },
    attachments,
  });
}
