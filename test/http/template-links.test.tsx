// Templates and the links of recipients: marketing mail must show its way out, in both parts.
import type { ReactElement } from 'react';
import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { ConfigError, readConfig } from '../../src/config.ts';
import { loadTemplates } from '../../src/templates/registry.ts';
import { shownLinks } from '../../src/templates/shown-links.ts';
import {
  defineTemplate,
  type Category,
  type ContextSchema,
  type Links,
} from '../../src/templates/define.ts';
import { useHarness } from '../support/harness.ts';

const h = useHarness();

const nothing: ContextSchema = v.strictObject({});

const templateOf = (category: Category, body: (links: Links) => ReactElement) => ({
  key: 'tested',
  ...defineTemplate({
    category,
    subject: () => 'Tested',
    sharedSchema: nothing,
    recipientSchema: nothing,
    sample: { shared: {}, recipient: {} },
    component: ({ links }) => (
      <html>
        <body>{body(links)}</body>
      </html>
    ),
  }),
});

describe('a marketing template', () => {
  it('without a link does not load', async () => {
    await expect(
      loadTemplates(new URL('../support/templates-without-link', import.meta.url).pathname),
    ).rejects.toThrow('emails/promotion: a marketing mail must show links.unsubscribe');
  });

  it('with a link in one part alone does not load', async () => {
    const inHtml = templateOf('marketing', ({ unsubscribe }) => (
      <p data-skip-in-text="true">
        <a href={unsubscribe}>Unsubscribe</a>
      </p>
    ));
    await expect(shownLinks(inHtml)).rejects.toThrow(/only in the HTML part/);
    const inText = templateOf('marketing', ({ unsubscribe }) => <p>Unsubscribe: {unsubscribe}</p>);
    await expect(shownLinks(inText)).rejects.toThrow(/only in the text part/);
    const half = templateOf('transactional', ({ confirm }) => <p>{confirm}</p>);
    await expect(shownLinks(half)).rejects.toThrow(/links.confirm/);
  });

  it('with the link in both loads', async () => {
    const good = templateOf('marketing', ({ unsubscribe }) => <a href={unsubscribe}>Leave</a>);
    expect(await shownLinks(good)).toEqual({ unsubscribe: true, confirm: false });
  });
});

it('a preview shows a sample of the link, where the mail has one', async () => {
  const preview = async (key: string) =>
    (await h.api('POST', `/api/templates/${key}/preview`, {})).body as {
      html: string;
      text: string;
    };
  const newsletter = await preview('course-newsletter');
  expect(newsletter.html).toContain('/unsubscribe/sample"');
  expect(newsletter.text).toContain('/unsubscribe/sample>');
  const question = await preview('confirm-subscription');
  expect(question.html).toContain('/confirm/sample"');
  expect(question.text).toContain('/confirm/sample>');
  expect((await preview('homework-score-published')).html).not.toContain('/sample');
});

it('UNSUBSCRIBE_MAILTO is an address, or the start fails', () => {
  expect(readConfig({}).unsubscribeMailto).toBeUndefined();
  expect(readConfig({ UNSUBSCRIBE_MAILTO: 'leave@a.example' }).unsubscribeMailto).toBe(
    'leave@a.example',
  );
  for (const wrong of ['leave', 'a@b', 'a@b.example>', 'mailto:a@b.example', 'a b@c.example']) {
    expect(() => readConfig({ UNSUBSCRIBE_MAILTO: wrong }), wrong).toThrow(ConfigError);
  }
});
