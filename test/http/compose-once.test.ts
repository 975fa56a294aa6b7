// Messages composed from what they share: the same mail as composed one by one, whatever the values
// are, and nothing on the wire that a relay would change or read as something else.
import { isUtf8 } from 'node:buffer';
import { generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import MailComposer from 'nodemailer/lib/mail-composer';
import PostalMime, { type Email } from 'postal-mime';
import { describe, expect, it } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { composeOnce, type MailFrame, type PersonalMail } from '../../src/smtp/compose-once.ts';
import { compose } from '../../src/smtp/compose.ts';
import { sign } from '../../src/smtp/dkim.ts';
import type { Mailbox } from '../../src/smtp/header-fields.ts';
import { fill, type Pattern } from '../../src/smtp/pattern.ts';
import { SmtpPool, parseSmtpUrl } from '../../src/smtp/transport.ts';
import { dkimTags, isSignedBy } from '../support/dkim.ts';
import { SmtpSink } from '../support/smtp-sink.ts';

const FRAME: MailFrame = {
  from: { name: 'Courses', address: 'courses@school.example' },
  replyTo: 'help@school.example',
  listId: '<course-6a1f.school.example>',
  text: { fixed: ['Hello ', '!\n'], gaps: [0] },
  html: { fixed: ['<p>Hello ', '!</p>'], gaps: [0] },
};
const MAIL: PersonalMail = {
  messageId: '<0199-4f2a@school.example>',
  date: new Date('2026-03-04T05:06:07Z'),
  to: { name: 'Ada Lovelace', address: 'ada@list.example' },
  subject: 'Your results',
  unsubscribe: [
    `https://mail.example/unsubscribe/${'x'.repeat(44)}`,
    `mailto:u@mail.example?subject=unsubscribe%20${'x'.repeat(44)}`,
  ],
  values: ['Ada'],
};

const make = (frame: Partial<MailFrame>, mail: Partial<PersonalMail>): Buffer =>
  composeOnce({ ...FRAME, ...frame })({ ...MAIL, ...mail });

const contentOf = (frame: MailFrame, { subject, values }: PersonalMail) => ({
  subject,
  text: fill(frame.text, values),
  html: fill(frame.html, values),
});

/** What every message must be, whatever is in it; its lines without those of the header. */
function expectWellFormed(raw: Buffer): string[] {
  const text = raw.toString('latin1');
  expect(text).not.toMatch(/[^\t\r\n -~]|\r(?!\n)|(?<!\r)\n/u);
  expect(text.endsWith('\r\n')).toBe(true);
  const end = text.indexOf('\r\n\r\n');
  const header = text.slice(0, end).split('\r\n');
  const body = text.slice(end + 4).split('\r\n');
  // Longer only where it cannot be folded, or is not on purpose.
  const fitting = /^(?! ?$)(?:.{1,76}| \S{1,330}|List-Unsubscribe: .{1,500})$/u;
  expect(header.filter((line) => !fitting.test(line))).toEqual([]);
  expect(body.filter((line) => line.length > 76 || /^\.|^From |[ \t]$/u.test(line))).toEqual([]);
  const words = text.slice(0, end).match(/=\?UTF-8\?[^ \r]*\?=/gu) ?? [];
  expect(words.filter((word) => word.length > 75 || !isWhole(word))).toEqual([]);
  return body;
}

/** No character is split. */
function isWhole(word: string): boolean {
  const [, , encoding, payload = ''] = word.split('?');
  const bytes =
    encoding === 'B'
      ? Buffer.from(payload, 'base64')
      : Buffer.from(unquoted(payload.replaceAll('_', '=20')), 'latin1');
  return isUtf8(bytes);
}

function unquoted(text: string): string {
  return text
    .replaceAll('=\r\n', '')
    .replace(/=([0-9A-F]{2})/gu, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
}

/** All that a mail client sees, without the boundary, and with one line break at the end of a part. */
async function seen(raw: Buffer): Promise<Partial<Email>> {
  const { headers, headerLines: _, text, html, ...mail } = await PostalMime.parse(raw);
  const others = headers
    .filter(({ key }) => !['from', 'to', 'reply-to', 'subject'].includes(key))
    .filter(({ key }) => key !== 'content-transfer-encoding')
    .map(({ key, value }) => `${key}: ${value.replace(/boundary=.*/u, 'boundary')}`)
    .sort();
  const part = (content?: string) => content && `${content.replace(/\n+$/u, '')}\n`;
  return { ...mail, headers: others as never, text: part(text), html: part(html) };
}

// What nodemailer alone makes of it: every rule of ours is also one of another's.
function byNodemailer(frame: MailFrame, mail: PersonalMail): Promise<Buffer> {
  const box = ({ name, address }: Mailbox) => ({ name: name ?? '', address });
  const { html, text } = contentOf(frame, mail);
  return new MailComposer({
    messageId: mail.messageId,
    date: mail.date,
    from: box(frame.from),
    replyTo: frame.replyTo ? box({ address: frame.replyTo }) : undefined,
    to: [box(mail.to)],
    subject: mail.subject,
    text,
    html,
    headers: {
      'Auto-Submitted': 'auto-generated',
      ...(frame.listId && { 'List-Id': frame.listId }),
      ...(mail.unsubscribe && {
        'List-Unsubscribe': {
          prepared: true,
          value: mail.unsubscribe.map((uri) => `<${uri}>`).join(', '),
        },
        'List-Unsubscribe-Post': 'List-Unsubscribe=One-Click',
      }),
    },
  })
    .compile()
    .build();
}

// Between bars.
const HOSTILE = [
  '=|==|=3D|=\r\n|=_part|--=_part|\n--=_part--\n|\r\n--=_part\r\n\r\n|--|-',
  '=?utf-8?Q?a=40b?=|=?utf-8?B?|?=| |   |\t|\u00a0|.|\n.\n|\r\n..\r\n|\r\n|\n|\r',
  'F|From |\nFrom x|rom |<b>|</p>|&amp;|"|\'|\\|,|;|:|<|>|(|@|x@evil.example',
  'Bcc: x@evil.example|\r\nBcc: x@evil.example|\r\n\r\n|\u2028Bcc: x@evil.example',
  '\u0000|\u0001|\u001b|\u007f|\u0085|\u2029|\u202e|\u200b|\u3000',
  'שלום|مرحبا|é|e\u0301|ß|漢字|🎓|👩🏽‍🎓|Ж|a|Ada|word ',
  [70, 75, 76, 1000].map((length) => 'x'.repeat(length)).join('|'),
  `${'é'.repeat(40)}|${'🎓'.repeat(30)}|${' x'.repeat(90)}`,
].flatMap((line) => line.split('|'));
const hostile = fc.oneof(
  fc.string({ unit: fc.constantFrom(...HOSTILE), maxLength: 12 }),
  fc.string({ unit: 'grapheme', maxLength: 120 }),
  fc.string({ unit: 'binary', maxLength: 120 }),
  fc.string({ unit: 'grapheme-ascii', maxLength: 120 }),
  fc.constantFrom('', 'Ada', 'x'.repeat(10_000), 'é'.repeat(10_000), '= '.repeat(5_000)),
);

const patternOf = (values: number): fc.Arbitrary<Pattern> =>
  fc
    .array(fc.nat(values - 1), { maxLength: 8 })
    .chain((gaps) =>
      fc
        .array(hostile, { minLength: gaps.length + 1, maxLength: gaps.length + 1 })
        .map((fixed) => ({ fixed, gaps })),
    );

const broken = (text: string) => text.replace(/\r\n?/gu, '\n');
const inLines = ({ fixed, gaps }: Pattern): Pattern => ({ fixed: fixed.map(broken), gaps });

describe('a message', () => {
  it('has in both parts what the pattern and the values say, whatever they are', async () => {
    await fc.assert(
      fc.asyncProperty(
        patternOf(4),
        patternOf(4),
        fc.array(hostile, { minLength: 4, maxLength: 4 }),
        async (text, html, given) => {
          const raw = make({ text, html }, { values: given });
          expectWellFormed(raw);
          const values = given.map(broken);
          const frame = { ...FRAME, text: inLines(text), html: inLines(html) };
          const mail = { ...MAIL, values };
          const { text: plain, html: markup } = contentOf(frame, mail);
          // A byte order mark in front is no text, to the parser.
          const part = (content: string) =>
            content ? `${content.replace(/^\ufeff/u, '')}\n` : undefined;
          fc.pre(plain !== '' || markup !== '');
          const parsed = await PostalMime.parse(raw);
          expect([parsed.text, parsed.html]).toEqual([part(plain), part(markup)]);
          const [fast, slow, others] = await Promise.all([
            seen(raw),
            compose({ ...frame, ...mail, to: [mail.to], content: contentOf(frame, mail) }).then(
              seen,
            ),
            byNodemailer(frame, mail).then(seen),
          ]);
          expect(fast).toEqual(slow);
          expect(fast).toEqual(others);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('has one text, and no other part or field than the frame says', async () => {
    await fc.assert(
      fc.asyncProperty(hostile, hostile, hostile, async (name, subject, value) => {
        const raw = make(
          {},
          { to: { name, address: 'ada@list.example' }, subject, values: [value] },
        );
        const body = expectWellFormed(raw);
        expect(body.filter((line) => line.startsWith('--=_'))).toEqual([
          '--=_part',
          '--=_part',
          '--=_part--',
        ]);
        const { headers } = await PostalMime.parse(raw);
        expect(headers.map(({ key }) => key)).toEqual([
          'message-id',
          'date',
          'to',
          ...(subject ? ['subject'] : []),
          'list-unsubscribe',
          'list-unsubscribe-post',
          'from',
          'reply-to',
          'auto-submitted',
          'list-id',
          'mime-version',
          'content-type',
        ]);
      }),
      { numRuns: 500 },
    );
  });
});

describe('names and the subject', () => {
  // The parser drops a byte order mark before a word, and takes a name that is the address for none.
  const header = hostile.filter((text) => !text.includes('\ufeff') && text !== 'ada@list.example');
  const oneLine = (text: string) => text.replace(/[\r\n]+/gu, ' ');

  it('arrive as they are, on one line, and bring no mailbox', async () => {
    await fc.assert(
      fc.asyncProperty(header, header, header, async (name, sender, subject) => {
        const from = { name: sender, address: 'courses@school.example' };
        const to = { name, address: 'ada@list.example' };
        const raw = make({ from }, { to, subject });
        expectWellFormed(raw);
        const parsed = await PostalMime.parse(raw);
        expect(parsed.from).toEqual({ ...from, name: oneLine(sender) });
        expect(parsed.to).toEqual([{ ...to, name: oneLine(name) }]);
        expect(parsed.subject ?? '').toBe(oneLine(subject));
        const slow = await compose({
          ...FRAME,
          ...MAIL,
          from,
          to: [to],
          content: { subject, text: 'a', html: 'b' },
        });
        expectWellFormed(slow);
        const { subject: its, from: from2, to: to2 } = await PostalMime.parse(slow);
        expect([its, from2, to2]).toEqual([parsed.subject, parsed.from, parsed.to]);
      }),
      { numRuns: 500 },
    );
  });

  // nodemailer alone reads "=?utf-8?Q?…?=" as an encoded word, and leaves blanks where they are lost.
  const spaced = (text?: string) =>
    oneLine(text ?? '')
      .replace(/\s+/gu, ' ')
      .trim();

  it('are what nodemailer makes of them', async () => {
    const ordinary = header.filter((text) => !text.includes('=?') && /[^\s]/u.test(text));
    await fc.assert(
      fc.asyncProperty(ordinary, ordinary, async (name, subject) => {
        const mail = { ...MAIL, to: { name, address: 'ada@list.example' }, subject };
        const ours = await PostalMime.parse(make({}, mail));
        const theirs = await PostalMime.parse(await byNodemailer(FRAME, mail));
        expect(spaced(ours.subject)).toBe(spaced(theirs.subject));
        expect(spaced(ours.to![0]!.name)).toBe(spaced(theirs.to![0]!.name));
        expect(ours.to![0]!.address).toBe(theirs.to![0]!.address);
      }),
      { numRuns: 500 },
    );
  });

  it.each([
    ['Ada Lovelace', 'Ada Lovelace <ada@list.example>'],
    ["Ada O'Hara", '"Ada O\'Hara" <ada@list.example>'],
    ['Ada "Al" \\ Lovelace', '"Ada \\"Al\\" \\\\ Lovelace" <ada@list.example>'],
    ['Lovelace, Ada', '"Lovelace, Ada" <ada@list.example>'],
    ['ceo@corp.example', '"ceo@corp.example" <ada@list.example>'],
    ['Zoë', '=?UTF-8?Q?Zo=C3=AB?= <ada@list.example>'],
    ['Ада', '=?UTF-8?B?0JDQtNCw?= <ada@list.example>'],
    ['=?utf-8?Q?a?=', '=?UTF-8?Q?=3D=3Futf-8=3FQ=3Fa=3F=3D?= <ada@list.example>'],
    ['a\r\nBcc: x@evil.example', '=?UTF-8?Q?a_Bcc=3A_x=40evil=2Eexample?= <ada@list.example>'],
    [null, 'ada@list.example'],
    ['', 'ada@list.example'],
  ])('of %j are To: %s', (name, to) => {
    const raw = make({}, { to: { name, address: 'ada@list.example' } }).toString('latin1');
    expect(/^To: (.*)$/mu.exec(raw)?.[1]).toBe(to);
  });
});

describe('an address', () => {
  it.each([
    ["o'hara+x=1@list.example", "o'hara+x=1@list.example"],
    ['Ada@LIST.example', 'Ada@list.example'],
    ['ada@münchen.example', 'ada@xn--mnchen-3ya.example'],
    ['ada@страна.рф', 'ada@xn--80aa2bkeg.xn--p1ai'],
    // Their mail server must know SMTPUTF8, so the domain may be as it is read, too.
    ['josé@münchen.example', 'josé@münchen.example'],
    ['用户@b.example', '用户@b.example'],
    ['\u017f@b.example', '\u017f@b.example'],
  ])('%s is written %s, as by nodemailer', async (address, written) => {
    for (const name of ['Zoë, Ada', null]) {
      const mail = { ...MAIL, to: { name, address } };
      const [ours, theirs] = await Promise.all(
        [make({}, mail), await byNodemailer(FRAME, mail)].map((raw) => PostalMime.parse(raw)),
      );
      expect(ours!.to).toEqual([{ name: name ?? '', address: written }]);
      expect(ours!.to).toEqual(theirs!.to);
    }
  });

  it('cannot bring another, nor a field', async () => {
    await fc.assert(
      fc.asyncProperty(hostile, async (local) => {
        const raw = make({}, { to: { name: 'Ada', address: `${local}@list.example` } });
        const { to, headers } = await PostalMime.parse(raw);
        expect(to).toHaveLength(1);
        expect(to![0]!.address).toMatch(/@list\.example$/u);
        expect(headers.map(({ key }) => key)).toHaveLength(12);
      }),
      { numRuns: 1_000 },
    );
  });
});

it('keeps what a URI of unsubscription says within it', async () => {
  const raw = make(
    {},
    { unsubscribe: ['https://a.example/u>\r\nBcc: <x@evil.example', 'mailto:é'] },
  );
  expectWellFormed(raw);
  const { headers } = await PostalMime.parse(raw);
  expect(headers.find(({ key }) => key === 'list-unsubscribe')?.value).toBe(
    '<https://a.example/u%3E%0D%0ABcc:%20%3Cx@evil.example>, <mailto:%C3%A9>',
  );
  expect(headers.filter(({ key }) => key === 'bcc')).toEqual([]);
});

it('leaves an empty part out', async () => {
  const empty = { fixed: ['', ''], gaps: [0] };
  const onlyHtml = make({ text: empty }, { values: [''] });
  expect((await PostalMime.parse(onlyHtml)).html).toBe('<p>Hello !</p>\n');
  expect(onlyHtml.toString()).toContain('Content-Type: text/html; charset=utf-8\r\n');
  expect(onlyHtml.toString()).not.toContain('multipart');
  const onlyText = make({ html: empty }, { values: [''] });
  expect((await PostalMime.parse(onlyText)).text).toBe('Hello !\n\n');
});

it('never begins a line with a dot or "From ", wherever the gaps are', async () => {
  for (const words of ['From here', '.', '..']) {
    for (let first = 0; first <= words.length; first++) {
      for (let second = first; second <= words.length; second++) {
        const values = [words.slice(first, second)];
        const text = { fixed: [words.slice(0, first), words.slice(second)], gaps: [0] };
        const raw = make({ text }, { values });
        expectWellFormed(raw);
        expect((await PostalMime.parse(raw)).text).toBe(`${words}\n`);
      }
    }
  }
});

it('goes through SMTP byte by byte, also where lines begin with dots', async () => {
  const sink = await new SmtpSink().start();
  try {
    const pool = new SmtpPool(parseSmtpUrl(sink.url), 1, createLogger('silent'));
    const values = ['.', '..\r\n.\r\n.', '.hidden\n..', 'From x\n.', '\n.\n'];
    const text = { fixed: ['', '\n', '\r\n', '', '\n.', '\n.\n'], gaps: [0, 1, 2, 3, 4] };
    const raw = make({ text, html: text }, { values });
    pool.take(1);
    const signal = await pool.send({ from: 'a@school.example', to: ['ada@list.example'] }, raw);
    pool.close();
    expect(signal.kind).toBe('accepted');
    expect(sink.accepted[0]!.raw.equals(raw)).toBe(true);
    const mail = await sink.mailTo('ada@list.example');
    expect(mail.text).toBe(broken(`${fill(text, values)}\n`));
    expect(mail.html).toBe(mail.text);
  } finally {
    await sink.stop();
  }
});

it('is signed as it goes over the wire', async () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const key = { domain: 'school.example', selector: 's1', privateKey: pem };
  const to = { name: 'Zoë  "Ada"', address: 'josé@list.example' };
  const values = ['a  b \t\r\n \n.\n'];
  for (const mail of [{}, { to, subject: 'é'.repeat(200), values }]) {
    const signed = (await sign(make({}, mail), key)).toString('latin1');
    expect(isSignedBy(privateKey, signed)).toBe(true);
    expect(dkimTags(signed).h).toBe(
      'from:to:subject:date:message-id:mime-version:content-type:reply-to:' +
        'list-unsubscribe:list-unsubscribe-post:list-id',
    );
    expect(isSignedBy(privateKey, signed.replace('Hello', 'hello'))).toBe(false);
  }
});
