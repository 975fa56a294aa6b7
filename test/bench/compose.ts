// What it takes to compose one message of a list send, from what the send's messages share and one by
// one, and to sign it, side by side in one run. `npm run bench:compose`.
import { generateKeyPairSync } from 'node:crypto';
import { composeOnce, type MailFrame, type PersonalMail } from '../../src/smtp/compose-once.ts';
import { compose } from '../../src/smtp/compose.ts';
import { sign } from '../../src/smtp/dkim.ts';
import { fill } from '../../src/smtp/pattern.ts';

const ROUNDS = 3000;

const paragraphs = (count: number) =>
  '<p style="margin:0 0 16px;font-size:14px;line-height:24px">It starts on Monday; bring a pen.</p>\n'.repeat(
    count,
  );
const lines = (count: number) => 'It starts on Monday; bring a pen.\n'.repeat(count);
const gaps = [0, 1, 2, 3, 4, 5];
const frame: MailFrame = {
  from: { name: 'Courses', address: 'courses@school.example' },
  replyTo: 'help@school.example',
  listId: '<course-6a1f.school.example>',
  html: { fixed: [20, 10, 20, 10, 15, 10, 5].map(paragraphs), gaps },
  text: { fixed: [5, 5, 5, 5, 3, 3, 2].map(lines), gaps },
};

function mailTo(name: string, number: number): PersonalMail {
  const link = `https://mail.school.example/unsubscribe/${String(number).padStart(44, 'x')}`;
  return {
    messageId: `<${number}@school.example>`,
    date: new Date(),
    to: { name, address: `m${number}@list.example` },
    subject: `Your result in the course, ${number}`,
    unsubscribe: [link],
    values: [name, String(number), 'Mathematics', 'passed', '17 of 20', link],
  };
}

/** The second of two runs, in microseconds for each message. */
async function measure<T>(
  label: string,
  name: string,
  make: (mail: PersonalMail) => Promise<T> | T,
) {
  const mails = Array.from({ length: ROUNDS }, (_, number) => mailTo(name, number));
  let started = 0;
  for (let run = 0; run < 2; run++) {
    started = performance.now();
    for (const mail of mails) await make(mail);
  }
  const each = ((performance.now() - started) * 1000) / ROUNDS;
  console.log(`${label.padEnd(32)} ${each.toFixed(1).padStart(7)} µs`);
}

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const key = { domain: 'school.example', selector: 's', privateKey: pem };
const once = composeOnce(frame);
const raw = once(mailTo('Ada Lovelace', 1));

console.log(`one message: ${raw.length} bytes`);
await measure('composed once, ASCII', 'Ada Lovelace', once);
await measure('composed once, UTF-8', 'Ада Лавлейс', once);
await measure('composed one by one', 'Ada Lovelace', ({ to, values, subject, ...mail }) => {
  const content = { subject, html: fill(frame.html, values), text: fill(frame.text, values) };
  return compose({ ...frame, ...mail, to: [to], content });
});
await measure('DKIM, RSA of 2048 bits', 'Ada Lovelace', () => sign(raw, key));
