// Attached files through the whole product: HTTP in, a parsed mail at the mail server out.
import { connect } from 'node:net';
import { beforeEach, describe, expect, it } from 'vitest';
import { anEmail, queueEmail, registerExampleTypes } from '../support/emails.ts';
import { useHarness } from '../support/harness.ts';
import { field, file, form, part, BOUNDARY, type Bytes } from '../support/multipart-client.ts';
import * as samples from '../support/sample-files.ts';
import { until } from '../support/until.ts';

const h = useHarness();

beforeEach(() => registerExampleTypes(h));

const FILES: [name: string, content: Buffer, type: string][] = [
  ['Invoice.pdf', samples.pdf(), 'application/pdf'],
  ['letter.doc', samples.doc(), 'application/msword'],
  ['letter.docx', samples.zip(samples.docx()), `${samples.WORD}.document`],
  ['scores.xls', samples.xls(), 'application/vnd.ms-excel'],
  ['scores.xlsx', samples.zip(samples.xlsx()), `${samples.EXCEL}.sheet`],
  ['заметки 要約.txt', Buffer.from('ÄÖÜ\r\n要約\nend without line end'), 'text/plain'],
  ['all.zip', samples.zip([{ name: 'a.txt', content: 'a', deflated: true }]), 'application/zip'],
  ['photo.jpg', samples.jpeg(), 'image/jpeg'],
  ['photo.jpeg', Buffer.concat([samples.jpeg(), Buffer.from('.')]), 'image/jpeg'],
  ['chart.png', samples.png(), 'image/png'],
  ['logo.gif', samples.gif(), 'image/gif'],
  ['scan.bmp', samples.bmp(), 'image/bmp'],
  ['photo.webp', samples.webp(), 'image/webp'],
  ['scan.tif', samples.tiff(), 'image/tiff'],
  ['scan.tiff', samples.tiff({ bigEndian: true }), 'image/tiff'],
];

describe('attachments', () => {
  it.each([
    ['the first half of the types', FILES.slice(0, 8)],
    ['and the other half', FILES.slice(8)],
  ])('of %s arrive byte for byte, in their order', async (_, files) => {
    const { status, body } = await queueEmail(
      h,
      h.key,
      anEmail({
        to_address: ['ada@x.example'],
        cc_addresses: ['cc@x.example'],
        bcc_addresses: ['bcc@x.example'],
        attachments: files.map(([name, content, type]) => ({ name, content, type })),
      }),
    );
    expect(status, body.message).toBe(201);
    expect(body.attachments_processed).toBe(files.length);
    const worker = await h.startWorker();
    await until('the mail', () => h.sink.accepted.length > 0);
    await worker.stop();
    const mail = await h.sink.mailTo('ada@x.example');
    expect(mail.attachments.map(({ filename, mimeType }) => [filename, mimeType])).toEqual(
      files.map(([name, , type]) => [name, type]),
    );
    for (const [index, [name, content]] of files.entries()) {
      const arrived = Buffer.from(mail.attachments[index]!.content as ArrayBuffer);
      expect(arrived.equals(content), name).toBe(true);
    }
  });

  it('are stored once, however often they are sent', async () => {
    const attachments = [{ name: 'a.pdf', content: samples.pdf() }];
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => queueEmail(h, h.key, anEmail({ attachments }))),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(10).fill(201));
    expect(await stored()).toMatchObject({ emails: 10, contents: 1 });
  });
});

describe('a malformed form', () => {
  const name = (more: string) => `Content-Disposition: form-data; ${more}`;
  const first = [
    field('email_type', 'welcome'),
    field('subject', 'Hello'),
    field('email_template', 'default_template'),
  ];
  const valid = form(
    ...first,
    field('email_data', '{"a": 1}'),
    field('to_address', 'ada@x.example'),
    file('attachments', 'a.pdf', samples.pdf()),
  );
  const text = valid.toString('latin1');
  const cutAfter = (mark: string, from = 0) =>
    valid.subarray(0, text.indexOf(mark, from) + mark.length);
  const lastPart = text.lastIndexOf('Content-Disposition');
  const including = (...more: Bytes[]) =>
    form(...first, field('email_data', '{}'), field('to_address', 'ada@x.example'), ...more);
  const DEFAULT_TYPE = `multipart/form-data; boundary=${BOUNDARY}`;

  const CASES: [string, Bytes, string?][] = [
    ['no boundary', valid, 'multipart/form-data'],
    ['an empty boundary', valid, 'multipart/form-data; boundary='],
    ['another boundary', valid, 'multipart/form-data; boundary=other'],
    ['a boundary of 71 characters', valid, `multipart/form-data; boundary=${'x'.repeat(71)}`],
    ['a JSON body', '{}', 'application/json'],
    ['a form of the other kind', 'email_type=welcome', 'application/x-www-form-urlencoded'],
    ['multipart/mixed', valid, `multipart/mixed; boundary=${BOUNDARY}`],
    ['no body', ''],
    ['only the final boundary', `--${BOUNDARY}--\r\n`],
    ['text', 'Dear all,'],
    ['cut in the first boundary', valid.subarray(0, 5)],
    ['cut after the first boundary', cutAfter(BOUNDARY)],
    ['cut in the first line end', cutAfter(`${BOUNDARY}\r`)],
    ['cut before a header', cutAfter('\r\n')],
    ["cut in a header's name", cutAfter('Content-Dispo')],
    ['cut in a header', cutAfter('form-data; na')],
    ['cut after a header', cutAfter('name="email_type"\r\n')],
    ['cut before a value', cutAfter('\r\n\r\n')],
    ['cut in a value', cutAfter('welc')],
    ['cut after a value', cutAfter('welcome')],
    ['cut in the line end of a value', cutAfter('welcome\r')],
    ['cut before a boundary', cutAfter('welcome\r\n')],
    ['cut in the dashes', cutAfter('welcome\r\n-')],
    ['cut in a file name', cutAfter('a.p', lastPart)],
    ['cut before a file', cutAfter('\r\n\r\n', lastPart)],
    ['cut in a file', cutAfter('%PDF-1', lastPart)],
    ['cut after a file', cutAfter('%%EOF\n', lastPart)],
    ['cut in the final boundary', valid.subarray(0, valid.length - 4)],
    ['cut in the final dashes', valid.subarray(0, valid.length - 3)],
    ['LF for line ends', Buffer.from(text.replaceAll('\r\n', '\n'), 'latin1')],
    ['10,000 parts', form(...Array<Buffer>(10_000).fill(field('to_address', 'ada@x.example')))],
    ['10,000 files', form(...Array<Buffer>(10_000).fill(file('attachments', 'a.txt', 'x')))],
    ['a header of 1 MB', including(part([`X-Long: ${'x'.repeat(1_000_000)}`]))],
    ['a part with 1,000 headers', including(part(Array<string>(1000).fill('X: y')))],
    ['a part without a header', including(part([]))],
    ['a part without a name', including(part([name('filename="a.pdf"')], 'x'))],
    ['an empty name', including(part([name('name=""')], 'x'))],
    ['a name of 10,000 characters', including(field('n'.repeat(10_000), 'x'))],
    ['NUL in a name', including(field('sub\0ject', 'x'))],
    ['CR LF in a name', including(field('sub\r\nject', 'x'))],
    ['NUL in a file name', including(file('attachments', 'a\0.pdf', samples.pdf()))],
    ['LF in a file name', including(part([name(`name="attachments"; filename*=UTF-8''a%0A.pdf`)]))],
    ['NUL in a value', including(field('cc_addresses', 'a\0@x.example'))],
    ['CR LF in an address', including(field('cc_addresses', 'a@x.example\r\nBcc: b@x.example'))],
    ['CR LF in a subject', form(field('subject', 'Hello\r\nBcc: b@x.example'), ...first.slice(1))],
    ['a value in Latin-1', including(field('cc_addresses', Buffer.from([0xe4])))],
    ['charset UTF-16', including(field('cc_addresses', 'x', ['Content-Type: text/plain; charset=utf-16']))],
    ['base64', including(field('cc_addresses', 'eA==', ['Content-Transfer-Encoding: base64']))],
    ['a nested multipart', including(part([name('name="attachments"'), 'Content-Type: multipart/mixed; boundary=in'], '--in\r\n\r\nx\r\n--in--\r\n'))],
    ['a second subject', including(field('subject', 'again'))],
    ['a text for attachments', including(field('attachments', 'x'))],
    ['a file for email_data', including(file('email_data', 'a.txt', '{}', 'text/plain'))],
    ['an unknown field', including(field('template', 'x'))],
  ]; // prettier-ignore

  it.each(CASES)('%s: is refused, and nothing is stored', async (_, body, type = DEFAULT_TYPE) => {
    const response = await fetch(`${h.url}/api/v1/emails/queue`, {
      method: 'POST',
      headers: { authorization: `Bearer ${h.key}`, 'content-type': type },
      body: typeof body === 'string' ? body : new Uint8Array(body),
    });
    const answer = await response.json();
    expect([400, 413, 415], JSON.stringify(answer)).toContain(response.status);
    expect(answer).toEqual({ success: false, message: expect.stringMatching(/.../u), data: null });
    expect(await stored()).toEqual({ messages: 0, emails: 0, contents: 0 });
  });

  it.each([
    ['another encoding', '', { 'content-encoding': 'gzip' }, 415],
    ['another charset', '', { 'content-type': `${DEFAULT_TYPE}; charset=utf-16` }, 415],
    ['a query', '?priority_level=1', {}, 400],
    ['a path that is no UTF-8', '%E4', {}, 400],
  ])('%s: is refused in this shape', async (_, path, headers, status) => {
    const response = await fetch(`${h.url}/api/v1/emails/queue${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${h.key}`, 'content-type': DEFAULT_TYPE, ...headers },
      body: new Uint8Array(valid),
    });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ success: false, data: null });
    expect(await stored()).toEqual({ messages: 0, emails: 0, contents: 0 });
  });

  it('a file without a declared type is what its content is', async () => {
    const response = await fetch(`${h.url}/api/v1/emails/queue`, {
      method: 'POST',
      headers: { authorization: `Bearer ${h.key}`, 'content-type': DEFAULT_TYPE },
      body: new Uint8Array(
        including(part([name('name="attachments"; filename="a.pdf"')], samples.pdf())),
      ),
    });
    expect(response.status).toBe(201);
  });

  it('is malformed by what was done to it alone', async () => {
    const response = await fetch(`${h.url}/api/v1/emails/queue`, {
      method: 'POST',
      headers: { authorization: `Bearer ${h.key}`, 'content-type': DEFAULT_TYPE },
      body: new Uint8Array(valid),
    });
    expect(response.status).toBe(201);
  });
});

describe('uploads that trickle', () => {
  it('of one client do not hold up another', async () => {
    const { hostname, port } = new URL(h.url);
    const trickling = Array.from({ length: 100 }, () => {
      const socket = connect(Number(port), hostname);
      socket.on('error', () => undefined);
      socket.write(
        `POST /api/v1/emails/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${h.key}\r\n` +
          `Content-Type: multipart/form-data; boundary=${BOUNDARY}\r\nContent-Length: 1000000\r\n\r\n`,
      );
      return socket;
    });
    let answered = 0;
    for (const socket of trickling) socket.once('data', () => (answered += 1));
    const other = await h.newClient('other');
    await other.api('PUT', '/api/senders/o', { email: 'o@other.example' });
    await other.api('PUT', '/api/v1/email-types/welcome', {});
    const { status } = await queueEmail(
      h,
      other.key,
      anEmail({
        to_address: ['ada@x.example'],
        attachments: [{ name: 'a.pdf', content: samples.pdf('x'.repeat(100_000)) }],
      }),
    );
    expect(status).toBe(201);
    expect(answered).toBe(0);
    for (const socket of trickling) socket.destroy();
  });
});

async function stored() {
  const { rows } = await h.database.pool.query(
    `select (select count(*)::integer from messages) as messages,
       (select count(*)::integer from single_emails) as emails,
       (select count(*)::integer from attachment_contents) as contents`,
  );
  return rows[0];
}
