// /api/v1/emails: queueing one email as multipart/form-data, and reading what became of it.
import { Hono } from 'hono';
import * as v from 'valibot';
import type { AttachmentLimits } from '../config.ts';
import type { NewAttachment } from '../emails-queue/attachments.ts';
import { checkAttachment } from '../emails-queue/attachment-types.ts';
import {
  EMAIL_STATUSES,
  getQueuedEmail,
  listQueuedEmails,
  type QueuedEmail,
} from '../emails-queue/emails.ts';
import { digestEmailRequest, queueEmail, type EmailRequest } from '../emails-queue/queue-email.ts';
import { DomainError, invalid, type FieldError } from '../errors.ts';
import { findFlaws } from '../flaws.ts';
import { address, freeData, issuesToErrors, jsonObject, key, line } from '../fields.ts';
import type { ApiEnv, Services } from './services.ts';
import { answer, INVALID_EMAIL_DATA, succeeded } from './legacy-shape.ts';
import { withMultipart, type MultipartForm, type SpooledFile } from './multipart.ts';
import { keepSpoolSwept, UploadGate } from './upload-gate.ts';
import { idParam, MIB, PAGE_QUERY, readQuery } from './request.ts';

/** Forms read at once, from the network to disk; each takes some 100 KiB, its text at most 2 MiB. */
const READ_AT_ONCE = { places: 64, perClient: 16 };
/** Forms stored at once: each holds one file in memory. */
const STORED_AT_ONCE = { places: 4, perClient: 2 };
/** A body of at most so many bytes needs no place to be read. */
const SMALL_BODY = 64 * 1024;
const UPLOAD_TIMEOUT_MS = 120_000;
const UPLOAD_SILENCE_MS = 10_000;

const PRIORITY = 'must be a whole number from 1 to 10';
const Fields = v.strictObject({
  email_type: key(),
  subject: line(998), // RFC 5322, section 2.1.1
  email_template: line(255),
  email_data: v.string(),
  priority_level: v.optional(
    v.pipe(v.string(), v.regex(/^([1-9]|10)$/u, PRIORITY), v.transform(Number)),
    '2',
  ),
  to_address: v.optional(v.array(address())),
  cc_addresses: v.optional(v.array(address())),
  bcc_addresses: v.optional(v.array(address())),
  // A part without a file name; files are read apart.
  attachments: v.optional(v.never('must be files, each with a file name')),
});
const REPEATED = new Set(['to_address', 'cc_addresses', 'bcc_addresses']);

export function emails({ db, templates, attachments: limits }: Services) {
  const app = new Hono<ApiEnv>();
  keepSpoolSwept();
  const reading = new UploadGate(READ_AT_ONCE);
  const storing = new UploadGate(STORED_AT_ONCE);

  app.post('/queue', async (c) => {
    readQuery(c, {});
    const { client } = c.var;
    const { signal } = c.req.raw;
    const key = idempotencyKey(c.req.header('idempotency-key'));
    const store = async (form: MultipartForm) => {
      const request = await readEmailRequest(form);
      const idempotency =
        key === undefined
          ? undefined
          : { key, digest: digestEmailRequest(form.fields, form.files) };
      const { email } = await queueEmail(db, templates, client, request, idempotency);
      return { email, attachments: form.files.length };
    };
    const length = Number(c.req.header('content-length') ?? Infinity);
    const { email, attachments } = await withMultipart(
      c.req.raw,
      multipartLimits(limits),
      (form) =>
        form.files.length === 0 ? store(form) : storing.run(signal, () => store(form), client.id),
      (read) => (length <= SMALL_BODY ? read() : reading.run(signal, read, client.id)),
    );
    const message = `Email ${email.email_id} received and published successfully`;
    return answer(
      c,
      {
        ...succeeded(message, requestOf(email)),
        email_id: email.email_id,
        attachments_processed: attachments,
      },
      201,
    );
  });

  app.get('/', async (c) => {
    const { status, email_type, ...request } = readQuery(c, {
      ...PAGE_QUERY,
      status: v.optional(v.picklist(EMAIL_STATUSES, `must be one of ${EMAIL_STATUSES.join(', ')}`)),
      email_type: v.optional(v.string()),
    });
    const page = await listQueuedEmails(db, c.var.client.id, { status, email_type }, request);
    return answer(c, succeeded('Emails', { emails: page.rows, next_cursor: page.next_cursor }));
  });

  app.get('/:id', async (c) => {
    readQuery(c, {});
    const email = await getQueuedEmail(db, c.var.client.id, idParam(c, 'The email'));
    return answer(c, succeeded(`Email ${email.email_id}`, email));
  });

  return app;
}

/** The fields of the request, as the documentation's answer shows them, with the final addresses. */
function requestOf(email: QueuedEmail) {
  const { email_type, subject, email_template, email_data, priority_level } = email;
  const { to_address, cc_addresses, bcc_addresses } = email;
  return {
    email_type,
    subject,
    email_template,
    email_data,
    priority_level,
    to_address,
    cc_addresses,
    bcc_addresses,
  };
}

function multipartLimits(limits: AttachmentLimits) {
  return {
    fieldBytes: MIB,
    fields: 3100, // a thousand addresses of each kind, and the rest
    files: limits.maxCount,
    fileBytes: limits.maxBytes,
    totalFileBytes: limits.maxTotalBytes,
    timeoutMs: UPLOAD_TIMEOUT_MS,
    silenceMs: UPLOAD_SILENCE_MS,
    leastBytesPerSecond: 1024,
  };
}

/** @throws validation_failed with everything that is wrong */
async function readEmailRequest(form: MultipartForm): Promise<EmailRequest> {
  const given = collect(form);
  const parsed = v.safeParse(Fields, given);
  const errors: FieldError[] = parsed.success ? [] : issuesToErrors(parsed.issues);
  errors.push(...form.files.filter((file) => file.field !== 'attachments').map(notAnAttachment));
  if (errors.length > 0 || !parsed.success) throw invalid(errors);
  const { email_data, ...fields } = parsed.output;
  const attachments: NewAttachment[] = [];
  for (const file of form.files) attachments.push(await readAttachment(file));
  return { ...fields, email_data: readEmailData(email_data), attachments };
}

/** Repeated fields as arrays, the others once. */
function collect(form: MultipartForm): Record<string, unknown> {
  const given = new Map<string, string | string[]>();
  for (const { name, value } of form.fields) {
    const present = given.get(name);
    if (REPEATED.has(name)) given.set(name, [...((present as string[] | undefined) ?? []), value]);
    else if (present === undefined) given.set(name, value);
    else throw invalid([{ path: name, message: 'must be given once' }]);
  }
  return Object.fromEntries(given);
}

function notAnAttachment(file: SpooledFile): FieldError {
  return { path: file.field, message: 'is not a field for files; files go into attachments' };
}

async function readAttachment(file: SpooledFile): Promise<NewAttachment> {
  const refuse = (message: string) => invalid([{ path: 'attachments', message }]);
  if (file.name === undefined) throw refuse('must have a file name each');
  if (file.size === 0) throw refuse(`"${file.name}" is empty`);
  const checked = await checkAttachment({ ...file, name: file.name });
  if ('refused' in checked) throw refuse(checked.refused);
  return { ...checked, path: file.path, sha256: file.sha256 };
}

function readEmailData(text: string): EmailRequest['email_data'] {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    throw new DomainError('validation_failed', INVALID_EMAIL_DATA);
  }
  if (!v.is(jsonObject(), data)) {
    throw invalid([{ path: 'email_data', message: 'must be a JSON object' }]);
  }
  const flaws = findFlaws(data);
  if (flaws.length > 0) {
    throw invalid(flaws.map(({ path, message }) => ({ path: `email_data.${path}`, message })));
  }
  const parsed = v.safeParse(freeData(), data);
  if (!parsed.success) throw invalid(issuesToErrors(parsed.issues, 'email_data'));
  return parsed.output;
}

function idempotencyKey(given: string | undefined): string | undefined {
  if (given === undefined) return undefined;
  // Two headers of the name come as one, joined by a comma and a blank.
  if (/^[\x20-\x7e]{1,255}$/u.test(given) && !given.includes(', ')) return given;
  throw invalid([
    { path: 'Idempotency-Key', message: 'must be one key of 1 to 255 printable ASCII characters' },
  ]);
}
