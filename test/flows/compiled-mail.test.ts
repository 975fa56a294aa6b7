// Mail as it arrives: made by compiled templates it is what full renders make, whoever it is for.
import fc from 'fast-check';
import PostalMime, { type Email } from 'postal-mime';
import { describe, expect, it } from 'vitest';
import { hostileText } from '../support/hostile-text.ts';
import { scoreSend, useHarness } from '../support/harness.ts';

const MEMBERS = 60;
const h = useHarness();

/** A line of text that the API takes. */
const line = hostileText
  .map((text) => text.toWellFormed().replaceAll(/[\p{Cc}\u2028\u2029]/gu, ''))
  .filter((text) => text !== '')
  .map((text) => text.slice(0, 200).toWellFormed());

async function deliver(rendering: 'compiled' | 'full', trigger: object): Promise<Email[]> {
  h.sink.accepted.length = 0;
  const { body } = await h.api('POST', '/api/recipient-lists/hostile/send', trigger);
  const worker = await h.startWorker({ rendering });
  const { counts } = await h.waitFor(body.send.id, (one) => one.completed_at !== null);
  await worker.close();
  expect(counts.sent).toBe(MEMBERS);
  const mails = await Promise.all(h.sink.accepted.map(({ raw }) => PostalMime.parse(raw)));
  return mails.toSorted((a, b) => (to(a) < to(b) ? -1 : 1));
}

const to = (mail: Email): string => mail.to![0]!.address!;

/**
 * What of a mail is the same however often it is made. Of a part that is not base64 the parser gives the
 * line break before the boundary, too.
 */
function lasting({ messageId: _id, date: _date, headers, text, html, ...mail }: Email): unknown {
  const own = new Set(['message-id', 'date', 'content-type']);
  return {
    ...mail,
    text: text?.replace(/\n$/u, ''),
    html: html?.replace(/\n$/u, ''),
    headerLines: undefined,
    headers: headers
      .filter(({ key }) => !own.has(key))
      .toSorted((a, b) => (a.key < b.key ? -1 : 1)),
  };
}

describe('mail of a compiled template', () => {
  it('is what a full render makes of it', async () => {
    const names = fc.sample(line, MEMBERS);
    const points = fc.sample(fc.double({ noNaN: true, noDefaultInfinity: true }), MEMBERS);
    await h.api('POST', '/api/recipient-lists/hostile/members/bulk-upsert', {
      members: names.map((name, at) => ({
        source_object_key: `m${at}`,
        email: `m${at}@list.example`,
        name,
        consent: 'subscribed',
      })),
    });
    const score = (at: number) => ({
      name: names[at]!,
      ...(at % 3 > 0 && { score: points[at]!, max_score: at }),
      ...(at % 4 === 0 && { details: [{ label: names[at]!, points: at }] }),
      ...(at % 2 > 0 && {
        score_url: `https://a.example/?m=${at}&n=${encodeURIComponent(names[at]!)}`,
      }),
    });
    const triggers = [
      scoreSend({
        recipient_context: Object.fromEntries(names.map((_, at) => [`m${at}`, score(at)])),
      }),
      {
        send_key: 'news',
        template_key: 'course-newsletter',
        shared_context: { title: names[0]!, body: `${names[1]!}\n\n${names[2]!}` },
        recipient_context: Object.fromEntries(names.map((name, at) => [`m${at}`, { name }])),
      },
    ];
    for (const trigger of triggers) {
      const full = await deliver('full', { ...trigger, send_key: `${trigger.send_key}:full` });
      const compiled = await deliver('compiled', trigger);
      expect(compiled.map(lasting)).toEqual(full.map(lasting));
    }
  });
});
