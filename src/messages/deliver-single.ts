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
import type { SmtpPool } from '../smtp/transport.ts';
import { splitContexts } from '../templates/registry.ts';
import { headerText, renderTemplate } from '../templates/render.ts';
import { untilAnswered } from './batch-writer.ts';
import { claimForPool, deliverWhileDue, scheduleRetry, type Delivery } from './delivery.ts';
import {
  anySingle,
  claimSingles,
  handBackSingles,
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
    const { claimed, skipped } = await claimForPool(urgent, 1, (places) =>
      claim(delivery, which, places),
    );
    const done = () => {
      urgent.release(1);
      giveWay();
    };
    await Promise.all(claimed.map((email) => deliverEmail(delivery, urgent, email, done)));
    if (claimed.length + skipped === 0) await warnOfMissingTemplates(delivery);
  } finally {
    giveWay();
  }
}

export async function deliverSingles(delivery: Delivery): Promise<void> {
  const { singles } = delivery;
  const which = sql<boolean>`${anySingle} and ${hasTemplate(delivery)}`;
  await deliverWhileDue(
    delivery,
    singles,
    singles.size,
    (places) => claim(delivery, which, places),
    (email) => deliverEmail(delivery, singles, email, () => singles.release(1)),
  );
  await warnOfMissingTemplates(delivery);
}

async function claim(
  { db, log, worker }: Delivery,
  which: RawBuilder<boolean>,
  places: number,
): ReturnType<typeof claimSingles> {
  const claimId = randomUUID();
  try {
    return await claimSingles(db, worker, claimId, which, places);
  } catch (error) {
    await untilAnswered(
      () => handBackSingles(db, claimId),
      (message) => log.error({ error: message }, 'emails not handed back yet'),
    );
    throw error;
  }
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
  pool: SmtpPool,
  email: ClaimedSingle,
  answered: () => void,
): Promise<void> {
  const { client_id, message_id } = email;
  const envelope = email.recipients.filter((recipient) => recipient.state === 'queued');
  const outcomes = await attempt(
    delivery,
    pool,
    email,
    envelope.map((recipient) => recipient.email_given),
  ).finally(answered);
  const urgent = email.priority_level === URGENT_PRIORITY;
  const scheduled = outcomes.map((outcome) =>
    scheduleRetry(outcome, delivery.retry, email, {
      urgent,
      seed: email.claimed_at.getTime(),
      onUnknown: email.on_unknown,
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
}

/** One SMTP transaction; an outcome for each of `addresses`, in their order. */
async function attempt(
  delivery: Delivery,
  pool: SmtpPool,
  email: ClaimedSingle,
  addresses: string[],
): Promise<Outcome[]> {
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
    return addresses.map(() => ({
      kind: 'failed',
      reason: 'render_failed',
      reply,
      suppress: false,
    }));
  }
  const to = addresses.map(envelopeAddress);
  const signal = await pool.send({ from: envelopeAddress(email.sender_email), to }, raw);
  return to.map((address) => outcomeFor(signal, address));
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
