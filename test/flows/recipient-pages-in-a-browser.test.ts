// What a person does with a link of a mail: opens it, presses the button, reads the answer. On a desktop
// and on a phone, light and dark, without JavaScript.
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterEach, beforeAll, afterAll, beforeEach, describe, expect, it } from 'vitest';
import { hasNoBrowser, startBrowser } from '../support/browser.ts';
import { useHarness } from '../support/harness.ts';
import { until } from '../support/until.ts';

const h = useHarness();
const skip = hasNoBrowser();

const SCREENS = {
  desktop: { viewport: { width: 1280, height: 800 }, colorScheme: 'light' },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: 'dark' },
} as const;

describe.skipIf(skip).each(Object.entries(SCREENS))('on a %s', (_name, screen) => {
  let browser: Browser;
  let context: BrowserContext;
  /** Requests to anywhere but us, and what the browser complains of. */
  let strange: string[];

  beforeAll(async () => {
    browser = await startBrowser();
  });
  afterAll(() => browser?.close());

  beforeEach(async () => {
    context = await browser.newContext({ ...screen, javaScriptEnabled: false });
    strange = [];
    context.on('request', (request) => {
      if (!request.url().startsWith(`${h.url}/`)) strange.push(request.url());
    });
    context.on('console', (message) => strange.push(message.text()));
    await h.api('PUT', '/api/recipient-lists/news', { name: 'Spring courses · 春季课程' });
    await h.api('PUT', '/api/recipient-lists/news/members/m1', {
      email: 'ada@list.example',
      consent: 'pending',
    });
  });
  afterEach(() => context.close());

  /** Opens the mail as a mail program shows it, and follows the link of this name. */
  async function follow(html: string, name: string): Promise<Page> {
    const mail = await context.newPage();
    await mail.setContent(html);
    const opened = context.waitForEvent('page');
    await mail.getByRole('link', { name }).click();
    const page = await opened;
    await page.waitForLoadState();
    return page;
  }

  async function press(page: Page, name: string | RegExp): Promise<string> {
    await page.getByRole('button', { name }).click();
    await page.waitForLoadState();
    return page.getByRole('heading', { level: 1 }).innerText();
  }

  async function expectFits(page: Page): Promise<void> {
    const width = await page.evaluate('document.documentElement.scrollWidth');
    expect(width).toBeLessThanOrEqual(screen.viewport.width);
    for (const button of await page.getByRole('button').all())
      expect((await button.boundingBox())!.height).toBeGreaterThanOrEqual(44);
    const background = await page.evaluate('getComputedStyle(document.body).backgroundColor');
    expect(background).toBe(
      screen.colorScheme === 'dark' ? 'rgb(17, 19, 21)' : 'rgb(244, 245, 247)',
    );
  }

  const consentOf = async () => (await h.api('GET', '/api/contacts/ada@list.example')).body.contact;

  it('a person confirms, unsubscribes from a list, and then from everything', async () => {
    const { body: asked } = await h.api(
      'POST',
      '/api/recipient-lists/news/members/m1/confirmation',
    );
    const worker = await h.startWorker();
    await until('the mail', async () => {
      const { body } = await h.api('GET', `/api/messages/${asked.message.id}`);
      return body.message.state === 'sent';
    });
    await worker.stop();
    const question = await h.sink.mailTo('ada@list.example');
    const confirm = await follow(question.html!, 'Confirm my subscription');
    await expectFits(confirm);
    expect(await consentOf()).toMatchObject({ lists: [{ consent: 'pending' }] });
    expect(await press(confirm, 'Yes, subscribe me')).toBe('You are subscribed');
    await expectFits(confirm);
    expect(await consentOf()).toMatchObject({ lists: [{ consent: 'subscribed' }] });

    h.sink.accepted.length = 0;
    const { body } = await h.api('POST', '/api/recipient-lists/news/send', {
      send_key: 'news',
      template_key: 'course-newsletter',
      shared_context: { title: 'News', body: 'Something new.' },
    });
    await h.drain(body.send.id);
    const newsletter = await h.sink.mailTo('ada@list.example');
    const leave = await follow(newsletter.html!, 'Unsubscribe');
    await expectFits(leave);
    expect(await leave.getByRole('main').innerText()).toContain('春季课程');
    expect(await consentOf()).toMatchObject({ lists: [{ consent: 'subscribed' }] });
    expect(await press(leave, /^Unsubscribe from Spring courses/)).toBe('You are unsubscribed');
    await expectFits(leave);
    expect(await consentOf()).toMatchObject({
      consent: 'subscribed',
      lists: [{ consent: 'unsubscribed' }],
    });
    expect(await press(leave, /^Unsubscribe from everything/)).toBe('You are unsubscribed');
    expect(await leave.getByRole('button').count()).toBe(0);
    expect(await consentOf()).toMatchObject({ consent: 'unsubscribed' });
    expect(await context.cookies()).toEqual([]);
    expect(strange).toEqual([]);
  });
});
