// Task deliver_urgent: one single email, at once, over connections no bulk mail uses.
import { sql } from 'kysely';
import type { MessageRef } from '../queue.ts';
import { envelopeAddress } from '../recipients/address.ts';
import { compose, messageIdOf } from '../smtp/compose.ts';
import { outcomeFor, type Outcome } from '../smtp/signal.ts';
import type { SmtpPool } from '../smtp/transport.ts';
import { headerText, renderTemplate } from '../templates/render.ts';
import { scheduleRetry, type Delivery } from './delivery.ts';
import { claimSingle, recordSingle, type ClaimedSingle } from './single.ts';

const TEMPLATE_WAIT_SECONDS = 60;

export async function deliverUrgent(delivery: Delivery, ref: MessageRef): Promise<void> {
  const { urgent } = delivery;
  const places = await urgent.reserve(1);
  if (places === 0) return;
  try {
    await deliverSingle(delivery, ref, urgent);
  } finally {
    urgent.release(places);
  }
}

async function deliverSingle(delivery: Delivery, ref: MessageRef, pool: SmtpPool): Promise<void> {
  if (!(await hasTemplate(delivery, ref))) return;
  const email = await claimSingle(delivery.db, delivery.worker, ref);
  if (!email) return;
  const envelope = email.recipients.filter((recipient) => recipient.state === 'queued');
  const outcomes = await attempt(
    delivery,
    email,
    envelope.map((one) => one.email_given),
    pool,
  );
  const scheduled = outcomes.map((outcome) =>
    scheduleRetry(outcome, delivery.retry, email, { urgent: true, seed: email.age_seconds }),
  );
  const retryIn = scheduled.find((one) => one.retryIn !== undefined)?.retryIn;
  await recordSingle(
    delivery.db,
    delivery.worker,
    ref,
    scheduled.map(({ outcome }, index) => ({ ordinal: envelope[index]!.ordinal, outcome })),
    retryIn,
  );
}

/** As with list mail: a message waits for a worker that has the template it was accepted with. */
async function hasTemplate({ db, log, templates }: Delivery, ref: MessageRef): Promise<boolean> {
  const email = await db
    .selectFrom('single_emails')
    .select(['template_key', 'template_version'])
    .where('client_id', '=', ref.client_id)
    .where('message_id', '=', ref.message_id)
    .executeTakeFirst();
  if (!email) return false;
  if (templates.get(email.template_key)?.version === email.template_version) return true;
  log.warn(
    {
      message_id: ref.message_id,
      template_key: email.template_key,
      template_version: email.template_version,
    },
    'this worker does not have the template version of the email; it stays queued',
  );
  await sql`
    update single_emails set next_attempt_at = now() + make_interval(secs => ${TEMPLATE_WAIT_SECONDS})
    where client_id = ${ref.client_id} and message_id = ${ref.message_id} and claimed_by is null
      and next_attempt_at is null
  `.execute(db);
  return false;
}

/** One SMTP transaction; an outcome for each of `addresses`, in their order. */
async function attempt(
  { templates, log }: Delivery,
  email: ClaimedSingle,
  addresses: string[],
  pool: SmtpPool,
): Promise<Outcome[]> {
  const visible = (kind: 'to' | 'cc') =>
    email.recipients
      .filter((recipient) => recipient.kind === kind)
      .map((recipient) => ({ address: recipient.email_given }));
  let raw: Buffer;
  try {
    const content = await renderTemplate(templates.get(email.template_key)!, email.contexts);
    raw = await compose({
      messageId: messageIdOf(email.id, email.sender_email),
      date: email.claimed_at,
      from: { name: email.sender_name, address: email.sender_email },
      replyTo: email.sender_reply_to,
      to: visible('to'),
      cc: visible('cc'),
      content:
        email.subject === null ? content : { ...content, subject: headerText(email.subject) },
    });
  } catch (error) {
    log.error(
      { message_id: email.id, template_key: email.template_key, error: (error as Error).message },
      'not rendered',
    );
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
