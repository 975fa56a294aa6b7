// The queue's documentation, example by example, through HTTP to a parsed mail at the mail server.
import { beforeEach, describe, expect, it } from 'vitest';
import { anEmail, queueEmail, registerExampleTypes, type FormFields } from '../support/emails.ts';
import { useHarness } from '../support/harness.ts';
import { until } from '../support/until.ts';

const h = useHarness();

beforeEach(() => registerExampleTypes(h));

const queue = (fields: FormFields, headers?: Record<string, string>) =>
  queueEmail(h, h.key, fields, headers);

async function deliver(emailId: string) {
  const worker = await h.startWorker();
  const email = await until('the email to be settled', async () => {
    const { body } = await h.api('GET', `/api/v1/emails/${emailId}`);
    return body.data.status !== 'Pending' && body.data;
  });
  await worker.stop();
  return email;
}

async function rowCounts() {
  const tables = [
    'messages',
    'single_emails',
    'message_recipients',
    'message_attachments',
    'attachment_contents',
    'graphile_worker._private_jobs',
  ];
  const counts: Record<string, number> = {};
  for (const table of tables) {
    const { rows } = await h.database.pool.query(`select count(*)::integer as count from ${table}`);
    counts[table] = rows[0].count;
  }
  return counts;
}

const NOTHING = {
  messages: 0,
  single_emails: 0,
  message_recipients: 0,
  message_attachments: 0,
  attachment_contents: 0,
  'graphile_worker._private_jobs': 0,
};

const DEFAULTS = { cc_addresses: ['cc@example.com'], bcc_addresses: ['bcc@example.com'] };

describe('the examples of the documentation', () => {
  const examples: [string, FormFields, object][] = [
    [
      'default recipients',
      {
        email_type: 'welcome',
        subject: 'Welcome to Our Platform',
        email_template: 'default_template',
        email_data: '{"name": "John Doe", "company": "Acme Corp"}',
        priority_level: '1',
      },
      { to_address: ['user1@example.com', 'user2@example.com'], ...DEFAULTS, priority_level: 1 },
    ],
    [
      'To overridden',
      {
        email_type: 'notification',
        subject: 'New Alert',
        email_template: 'default_template',
        email_data: '{"alert": "System Update"}',
        priority_level: '2',
        to_address: ['user1@example.com', 'user2@example.com', 'user3@example.com'],
      },
      {
        to_address: ['user1@example.com', 'user2@example.com', 'user3@example.com'],
        ...DEFAULTS,
        priority_level: 2,
      },
    ],
    [
      'everything overridden',
      {
        email_type: 'notification',
        subject: 'Urgent Alert',
        email_template: 'default_template',
        email_data: '{"alert": "Critical Update"}',
        priority_level: '1',
        to_address: ['admin1@example.com', 'admin2@example.com'],
        cc_addresses: ['manager@example.com', 'lead@example.com'],
        bcc_addresses: ['audit@example.com'],
      },
      {
        to_address: ['admin1@example.com', 'admin2@example.com'],
        cc_addresses: ['manager@example.com', 'lead@example.com'],
        bcc_addresses: ['audit@example.com'],
      },
    ],
  ];

  it.each(examples)('%s', async (_name, fields, expected) => {
    const { status, body } = await queue(fields);
    expect(status).toBe(201);
    const { email_type, subject, email_template } = fields;
    expect(body).toEqual({
      success: true,
      message: `Email ${body.email_id} received and published successfully`,
      data: {
        email_type,
        subject,
        email_template,
        email_data: JSON.parse(fields.email_data as string),
        priority_level: Number(fields.priority_level),
        to_address: expect.any(Array),
        cc_addresses: expect.any(Array),
        bcc_addresses: expect.any(Array),
      },
      email_id: expect.stringMatching(
        /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      ),
      attachments_processed: 0,
    });
    expect(body.data).toMatchObject(expected);
    const email = await deliver(body.email_id);
    expect(email).toMatchObject({ status: 'Sent', attempts: 1, subject });
    const { to_address, cc_addresses, bcc_addresses } = body.data;
    expect(h.sink.accepted).toHaveLength(1);
    expect(h.sink.accepted[0]!.to).toEqual([...to_address, ...cc_addresses, ...bcc_addresses]);
    const mail = await h.sink.mailTo(to_address[0]);
    expect(mail.subject).toBe(subject);
    expect(mail.to?.map((one) => one.address)).toEqual(to_address);
    expect(mail.cc?.map((one) => one.address)).toEqual(cc_addresses);
    for (const hidden of bcc_addresses)
      expect(h.sink.accepted[0]!.raw.toString()).not.toContain(hidden);
    for (const value of Object.values(JSON.parse(fields.email_data as string)))
      expect(mail.text).toContain(value);
  });

  it('with attachments, by type and overridden', async () => {
    const pdf = Buffer.from(
      '%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n',
    );
    const text = Buffer.from('a,b\r\n1,2\nüñ\n');
    const { status, body } = await queue({
      email_type: 'report',
      subject: 'Quarterly Report',
      email_template: 'default_template',
      email_data: '{"quarter": "Q1 2026"}',
      priority_level: '1',
      to_address: ['executive1@example.com', 'executive2@example.com'],
      cc_addresses: ['team@example.com'],
      attachments: [
        { name: 'q1_report.pdf', type: 'application/pdf', content: pdf },
        { name: 'zusammenfassung – 要約.txt', type: 'text/plain', content: text },
      ],
    });
    expect(status).toBe(201);
    expect(body).toMatchObject({
      attachments_processed: 2,
      data: { bcc_addresses: ['bcc@example.com'] },
    });
    const email = await deliver(body.email_id);
    expect(email.attachments).toEqual([
      { name: 'q1_report.pdf', content_type: 'application/pdf', size: pdf.length },
      {
        name: 'zusammenfassung – 要約.txt',
        content_type: 'text/plain; charset=utf-8',
        size: text.length,
      },
    ]);
    const mail = await h.sink.mailTo('executive1@example.com');
    expect(mail.attachments.map((one) => [one.filename, one.mimeType, one.disposition])).toEqual([
      ['q1_report.pdf', 'application/pdf', 'attachment'],
      ['zusammenfassung – 要約.txt', 'text/plain', 'attachment'],
    ]);
    expect(Buffer.from(mail.attachments[0]!.content as ArrayBuffer).equals(pdf)).toBe(true);
    expect(Buffer.from(mail.attachments[1]!.content as ArrayBuffer).equals(text)).toBe(true);
  });
});

describe('the merge of recipients', () => {
  const given = {
    to_address: ['to@given.example'],
    cc_addresses: ['cc@given.example'],
    bcc_addresses: ['bcc@given.example'],
  };
  const types = { to_address: ['user1@example.com', 'user2@example.com'], ...DEFAULTS };
  const fields = ['to_address', 'cc_addresses', 'bcc_addresses'] as const;
  // All eight combinations of the table: each field by itself.
  it.each(
    Array.from({ length: 8 }, (_, bits) => fields.filter((__, index) => (bits >> index) & 1)).map(
      (one) => [one],
    ),
  )('overrides exactly %j', async (overridden) => {
    const { body } = await queue(
      anEmail(Object.fromEntries(overridden.map((name) => [name, given[name]]))),
    );
    for (const name of fields) {
      expect(body.data[name]).toEqual((overridden.includes(name) ? given : types)[name]);
    }
    const email = await deliver(body.email_id);
    expect(h.sink.accepted[0]!.to).toEqual(fields.flatMap((name) => body.data[name]));
    expect(email.recipients.map((one: { status: string }) => one.status)).toEqual(
      h.sink.accepted[0]!.to.map(() => 'Sent'),
    );
  });

  it('mails an address once that stands more than once: as To before Cc before Bcc', async () => {
    const { body } = await queue(
      anEmail({
        to_address: ['a@x.example', 'A@X.example'],
        cc_addresses: ['b@x.example', 'a@x.example'],
        bcc_addresses: ['B@x.example', 'c@x.example'],
      }),
    );
    expect(body.data).toMatchObject({
      to_address: ['a@x.example'],
      cc_addresses: ['b@x.example'],
      bcc_addresses: ['c@x.example'],
    });
    await deliver(body.email_id);
    expect(h.sink.accepted[0]!.to).toEqual(['a@x.example', 'b@x.example', 'c@x.example']);
  });

  it('may have no To at all', async () => {
    await h.api('PUT', '/api/v1/email-types/audit', { bcc_addresses: ['hidden@x.example'] });
    const { status, body } = await queue(anEmail({ email_type: 'audit' }));
    expect(status).toBe(201);
    await deliver(body.email_id);
    expect(h.sink.accepted[0]!.to).toEqual(['hidden@x.example']);
    expect(h.sink.accepted[0]!.raw.toString()).not.toContain('hidden@x.example');
  });
});

describe('what is refused', () => {
  const refused = async (fields: FormFields, status: number, message: string | RegExp) => {
    const answer = await queue(fields);
    expect(answer.status).toBe(status);
    expect(answer.body).toEqual({
      success: false,
      message: expect.stringMatching(message),
      data: null,
    });
    expect(await rowCounts()).toEqual(NOTHING);
  };
  const without = (...names: string[]) =>
    Object.fromEntries(Object.entries(anEmail()).filter(([name]) => !names.includes(name)));

  it('invalid JSON in email_data', async () => {
    for (const email_data of ['{', '', "{'a': 1}", 'undefined', '{"a": 1}}']) {
      await refused(anEmail({ email_data }), 400, /^Invalid JSON format in email_data field$/);
    }
  });

  it('email_data that is no object, or cannot be stored', async () => {
    for (const email_data of ['[]', 'null', '"text"', '1']) {
      await refused(
        anEmail({ email_data }),
        400,
        /^Payload validation failed: email_data must be a JSON object$/,
      );
    }
    await refused(
      anEmail({ email_data: '{"a": {"b": "\\u0000"}}' }),
      400,
      /email_data\.a\.b must not contain the character NUL/,
    );
    await refused(
      anEmail({ email_data: '{"a": "\\ud800"}' }),
      400,
      /email_data\.a must be well-formed Unicode/,
    );
    await refused(
      anEmail({ email_data: `{"a": ${'['.repeat(10_000)}${']'.repeat(10_000)}}` }),
      400,
      /nested at most 64 deep/,
    );
    await refused(
      anEmail({ email_data: '{"__proto__": {"a": 1}}' }),
      400,
      /__proto__ must have another name/,
    );
  });

  it('a template that does not exist', async () => {
    await refused(
      anEmail({ email_template: 'template.html' }),
      400,
      /^Payload validation failed: Template 'template\.html' does not exist in templates folders: /,
    );
  });

  it('data that does not fit the template', async () => {
    const email_template = 'homework-score-published';
    await refused(
      anEmail({ email_template, email_data: '{"score": "many", "mystery": 1}' }),
      400,
      /^Payload validation failed: /,
    );
    const { body } = await queue(
      anEmail({ email_template, email_data: '{"score": "many", "mystery": 1}' }),
    );
    for (const name of [
      'course_title is required',
      'homework_title is required',
      'score must be a number',
      'mystery is not a known field',
    ]) {
      expect(body.message).toContain(`email_data.${name}`);
    }
  });

  it('a type that is not registered, or not active', async () => {
    await refused(anEmail({ email_type: 'nothing' }), 422, /^Email type is not registered$/);
    await h.api('PUT', '/api/v1/email-types/welcome', { is_active: false });
    await refused(anEmail(), 422, /^Email type is not active$/);
    const other = await h.newClient('other');
    const { status } = await queueEmail(h, other.key, anEmail());
    expect(status).toBe(422);
  });

  it('missing, repeated and unknown fields', async () => {
    for (const name of ['email_type', 'subject', 'email_template', 'email_data']) {
      await refused(
        without(name),
        400,
        new RegExp(`^Payload validation failed: ${name} is required`),
      );
    }
    await refused(anEmail({ subject: ['One', 'Two'] }), 400, /subject must be given once/);
    await refused(anEmail({ reply_to: 'a@b.example' }), 400, /reply_to is not a known field/);
    await refused(anEmail({ subject: '' }), 400, /subject must not be empty/);
    await refused(
      anEmail({ subject: 'a\r\nBcc: evil@x.example' }),
      400,
      /subject must be one line/,
    );
  });

  it('priorities beyond 1 to 10', async () => {
    for (const priority_level of ['0', '11', '-1', '1.5', 'high', '', '01', '1e1']) {
      await refused(
        anEmail({ priority_level }),
        400,
        /priority_level must be a whole number from 1 to 10/,
      );
    }
  });

  it('addresses that are none', async () => {
    await refused(
      anEmail({ to_address: ['a@b.example', 'nobody'] }),
      400,
      /to_address\.1 must be an email address/,
    );
    await refused(anEmail({ cc_addresses: [''] }), 400, /cc_addresses\.0 must be an email address/);
    await refused(
      anEmail({ bcc_addresses: ['a@b.example, c@d.example'] }),
      400,
      /bcc_addresses\.0 /,
    );
    await refused(
      anEmail({ to_address: ['a@b.example\r\nBcc: c@d.example'] }),
      400,
      /to_address\.0 /,
    );
  });

  it('no recipient at all, and more than a thousand', async () => {
    await h.api('PUT', '/api/v1/email-types/empty', {});
    await refused(
      anEmail({ email_type: 'empty' }),
      400,
      /to_address must be given: the email type "empty" has no recipients/,
    );
    const many = Array.from({ length: 1001 }, (_, index) => `u${index}@x.example`);
    await refused(
      anEmail({ email_type: 'empty', to_address: many }),
      400,
      /at most 1000 addresses, these are 1001/,
    );
    const { status } = await queue(anEmail({ email_type: 'empty', to_address: many.slice(1) }));
    expect(status).toBe(201);
  });

  it('files that are empty, nameless, in another field or not allowed', async () => {
    await refused(
      anEmail({ attachments: [{ name: 'a.pdf', content: '' }] }),
      400,
      /"a\.pdf" is empty/,
    );
    await refused(
      anEmail({ attachments: [{ name: '', content: 'x' }] }),
      400,
      /must have a file name each/,
    );
    await refused(
      anEmail({ files: [{ name: 'a.txt', content: 'x' }] }),
      400,
      /files is not a field for files/,
    );
    await refused(anEmail({ attachments: [{ name: 'run.exe', content: 'MZ' }] }), 400, /run\.exe/);
    await refused(
      anEmail({ attachments: 'text' }),
      400,
      /attachments must be files, each with a file name/,
    );
  });

  it('files that are too large or too many, as 413', async () => {
    const file = (bytes: number) => ({
      name: 'a.txt',
      type: 'text/plain',
      content: Buffer.alloc(bytes, 'a'),
    });
    await refused(anEmail({ attachments: [file(10 * 2 ** 20 + 1)] }), 413, /a\.txt/);
    await refused(
      anEmail({ attachments: [file(9 * 2 ** 20), file(9 * 2 ** 20), file(9 * 2 ** 20)] }),
      413,
      /together/,
    );
    await refused(anEmail({ attachments: Array.from({ length: 21 }, () => file(1)) }), 413, /20/);
    const { status } = await queue(anEmail({ attachments: [file(10 * 2 ** 20)] }));
    expect(status).toBe(201);
  });

  it('anything but multipart/form-data, in this shape', async () => {
    const { status, body } = await h.api('POST', '/api/v1/emails/queue', { email_type: 'welcome' });
    expect(status).toBe(415);
    expect(body).toEqual({
      success: false,
      message: expect.stringContaining('multipart/form-data'),
      data: null,
    });
  });

  it('a wrong key, in this shape', async () => {
    const { status, body } = await queueEmail(h, 'rp_wrong', anEmail());
    expect(status).toBe(401);
    expect(body).toEqual({ success: false, message: expect.any(String), data: null });
  });

  it('an email without any sender', async () => {
    await h.api('DELETE', '/api/senders/courses');
    await refused(anEmail(), 422, /sender/);
  });
});

describe('a database that fails', () => {
  it('is the documented 500, with nothing stored', async () => {
    const { pool } = h.database;
    await pool.query(
      `create function refuse() returns trigger language plpgsql as $$ begin raise exception 'disk full' using errcode = '53100'; end $$`,
    );
    for (const table of [
      'single_emails',
      'message_recipients',
      'graphile_worker._private_jobs',
      'api_keys',
    ]) {
      const event = table === 'api_keys' ? 'update' : 'insert';
      await pool.query('update api_keys set last_used_at = null');
      await pool.query(
        `create trigger refuse before ${event} on ${table} execute function refuse()`,
      );
      const { status, body } = await queue(anEmail());
      await pool.query(`drop trigger refuse on ${table}`);
      expect([table, status, body]).toEqual([
        table,
        500,
        { success: false, message: 'Failed to register the request into email queue', data: null },
      ]);
      expect(await rowCounts()).toEqual(NOTHING);
    }
    await pool.query('drop function refuse()');
    expect((await queue(anEmail())).status).toBe(201);
  });
});

describe('an Idempotency-Key', () => {
  const key = { 'idempotency-key': 'order-4711' };
  const file = (content: string, name = 'a.txt') => [{ name, type: 'text/plain', content }];

  it('replays the stored answer for the same request, whatever its boundary', async () => {
    const first = await queue(anEmail({ attachments: file('one') }), key);
    const again = await queue(anEmail({ attachments: file('one') }), key);
    expect(first.status).toBe(201);
    expect(again).toMatchObject({ status: 201, body: first.body });
    expect((await rowCounts()).messages).toBe(1);
    await deliver(first.body.email_id);
    expect((await queue(anEmail({ attachments: file('one') }), key)).body).toEqual(first.body);
  });

  it('is a conflict for a changed field or byte', async () => {
    await queue(anEmail({ attachments: file('one') }), key);
    const changes: FormFields[] = [
      { attachments: file('onE') },
      { attachments: file('one', 'b.txt') },
      { attachments: [...file('one'), ...file('two')] },
      {},
      { attachments: file('one'), subject: 'Other' },
      { attachments: file('one'), priority_level: '2' },
      { attachments: file('one'), to_address: ['x@y.example'] },
      { attachments: file('one'), email_data: '{"name":"John Doe","company":"Acme"}' },
    ];
    for (const change of changes) {
      const { status, body } = await queue(anEmail(change), key);
      expect(status).toBe(409);
      expect(body).toEqual({
        success: false,
        message: expect.stringContaining('Idempotency-Key'),
        data: null,
      });
    }
    expect((await rowCounts()).messages).toBe(1);
  });

  it('makes one email of 20 concurrent identical requests', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => queue(anEmail({ attachments: file('x') }), key)),
    );
    expect(answers.map((one) => one.status)).toEqual(answers.map(() => 201));
    expect(new Set(answers.map((one) => one.body.email_id)).size).toBe(1);
    expect((await rowCounts()).messages).toBe(1);
    await deliver(answers[0]!.body.email_id);
    expect(h.sink.accepted).toHaveLength(1);
  });

  it('belongs to the client', async () => {
    const other = await h.newClient('other');
    await other.api('PUT', '/api/senders/s', { email: 's@other.example' });
    await other.api('PUT', '/api/v1/email-types/welcome', { to_addresses: ['a@b.example'] });
    const first = await queue(anEmail(), key);
    const second = await queueEmail(h, other.key, anEmail(), key);
    expect(second.status).toBe(201);
    expect(second.body.email_id).not.toBe(first.body.email_id);
    expect((await other.api('GET', `/api/v1/emails/${first.body.email_id}`)).status).toBe(404);
  });

  it('never fails because something was changed since', async () => {
    const first = await queue(anEmail(), key);
    await h.api('DELETE', '/api/v1/email-types/welcome');
    await h.api('DELETE', '/api/senders/courses');
    expect((await queue(anEmail(), key)).body).toEqual(first.body);
  });

  it('must be a text of 1 to 255 characters', async () => {
    const { status } = await queue(anEmail(), { 'idempotency-key': 'x'.repeat(256) });
    expect(status).toBe(400);
  });
});

describe('reading emails', () => {
  it('lists them, by status and type, in pages', async () => {
    for (const email_type of ['welcome', 'report', 'welcome']) await queue(anEmail({ email_type }));
    const list = async (query: string) => (await h.api('GET', `/api/v1/emails?${query}`)).body;
    expect(await list('')).toMatchObject({
      success: true,
      message: expect.any(String),
      data: { next_cursor: null },
    });
    expect((await list('email_type=welcome')).data.emails).toHaveLength(2);
    expect((await list('status=Pending')).data.emails).toHaveLength(3);
    expect((await list('status=Sent')).data.emails).toHaveLength(0);
    const first = await list('limit=2');
    const second = await list(`limit=2&cursor=${first.data.next_cursor}`);
    expect([first.data.emails.length, second.data.emails.length, second.data.next_cursor]).toEqual([
      2,
      1,
      null,
    ]);
    expect((await h.api('GET', '/api/v1/emails?status=sent')).body).toEqual({
      success: false,
      message: 'Payload validation failed: status must be one of Pending, Sent, Failed',
      data: null,
    });
  });

  it('tells the queue of each priority', async () => {
    for (const [priority_level, queueName] of [
      ['1', 'email.high'],
      ['2', 'email.normal'],
      ['3', 'email.low'],
      ['10', 'email.low'],
    ] as const) {
      const { body } = await queue(anEmail({ priority_level }));
      const { body: read } = await h.api('GET', `/api/v1/emails/${body.email_id}`);
      expect(read).toMatchObject({
        success: true,
        data: { queue: queueName, status: 'Pending', attempts: 0 },
      });
    }
    const { body } = await queue(anEmail());
    expect(body.data.priority_level).toBe(2);
  });

  it('is 404 in this shape for what is not there', async () => {
    for (const path of [
      '/api/v1/emails/nothing',
      '/api/v1/emails/01a20171-294d-730e-86fd-0270ed14664c',
      '/api/v1/nothing',
    ]) {
      const { status, body } = await h.api('GET', path);
      expect(status).toBe(404);
      expect(body).toEqual({ success: false, message: expect.any(String), data: null });
    }
  });
});

describe('email types', () => {
  it('are registered, read, changed and deleted', async () => {
    const input = {
      description: 'Invoices',
      to_addresses: ['Billing@X.example'],
      from_email: 'courses',
    };
    const created = await h.api('PUT', '/api/v1/email-types/invoice', input);
    expect(created).toMatchObject({
      status: 201,
      body: {
        success: true,
        data: { email_type: 'invoice', ...input, cc_addresses: [], is_active: true },
      },
    });
    const updated = await h.api('PUT', '/api/v1/email-types/invoice', {
      cc_addresses: ['a@b.example'],
      from_email: null,
    });
    expect(updated).toMatchObject({
      status: 200,
      body: { data: { ...input, from_email: null, cc_addresses: ['a@b.example'] } },
    });
    expect((await h.api('GET', '/api/v1/email-types/invoice')).body.data.description).toBe(
      'Invoices',
    );
    const { body } = await h.api('GET', '/api/v1/email-types');
    expect(body.data.email_types.map((one: { email_type: string }) => one.email_type)).toEqual([
      'invoice',
      'notification',
      'report',
      'welcome',
    ]);
    expect(await h.api('DELETE', '/api/v1/email-types/invoice')).toMatchObject({
      status: 200,
      body: { success: true, message: expect.any(String), data: null },
    });
    expect((await h.api('DELETE', '/api/v1/email-types/invoice')).status).toBe(404);
  });

  it('name what is wrong with them', async () => {
    const { status, body } = await h.api('PUT', '/api/v1/email-types/x', {
      to_addresses: ['nobody'],
      mystery: 1,
    });
    expect(status).toBe(400);
    expect(body.message).toContain('to_addresses.0 must be an email address');
    expect(body.message).toContain('mystery is not a known field');
    expect((await h.api('PUT', '/api/v1/email-types/x', { from_email: 'nobody' })).status).toBe(
      422,
    );
  });

  it('hold on to their sender', async () => {
    await h.api('PUT', '/api/v1/email-types/welcome', { from_email: 'courses' });
    expect(await h.api('DELETE', '/api/senders/courses')).toMatchObject({
      status: 409,
      body: { code: 'sender_in_use' },
    });
  });
});
