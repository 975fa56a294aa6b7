// What the pages of recipients say. Names come from the client and are escaped; a name can be in any
// script, so each is isolated from the sentence around it. No page shows an address.
import { html } from 'hono/html';
import type { Subscription } from '../recipients/consent.ts';
import type { Page } from './page.ts';

/** Before: the choice, without what has been chosen already. */
export function unsubscribePage(subscription: Subscription): Page {
  const { list_name, has_left_list, has_left_all } = subscription;
  if (has_left_all || (has_left_list && list_name !== null)) return unsubscribedPage(subscription);
  const client = name(subscription.client_name, 'this sender');
  if (list_name === null) {
    return {
      title: 'Unsubscribe',
      body: html`<p>Do you want no more newsletters and announcements from ${client}?</p>
        <form method="post">${everythingButton(client, '')}</form>
        ${STILL}`,
    };
  }
  return {
    title: 'Unsubscribe',
    body: html`<p>
        You get this mail from ${client} because you are on the list ${name(list_name)}.
      </p>
      <form method="post">
        <button name="scope" value="list">Unsubscribe from ${name(list_name)}</button>
        ${everythingButton(client, 'second')}
      </form>
      ${STILL}`,
  };
}

/** After, or where it was done before. */
export function unsubscribedPage(subscription: Subscription): Page {
  const { list_name, has_left_list, has_left_all } = subscription;
  const client = name(subscription.client_name, 'this sender');
  const onlyList = has_left_list && !has_left_all && list_name !== null;
  return {
    title: 'You are unsubscribed',
    body: onlyList
      ? html`<p>
            You get no more mail of the list ${name(list_name)} from ${client}. You can close this
            page.
          </p>
          <form method="post">${everythingButton(client, 'second')}</form>
          ${STILL}`
      : html`<p>
            You get no more newsletters and announcements from ${client}. You can close this page.
          </p>
          ${STILL}`,
  };
}

export function confirmPage({ client_name, list_name }: Subscription): Page {
  return {
    title: 'Confirm your subscription',
    body: html`<p>
        Do you want to receive ${name(list_name ?? '', 'the mails')} from
        ${name(client_name, 'this sender')}?
      </p>
      <form method="post"><button>Yes, subscribe me</button></form>
      <small>If you did not ask for this, close this page: you are not subscribed.</small>`,
  };
}

export function confirmedPage({ client_name, list_name }: Subscription): Page {
  return {
    title: 'You are subscribed',
    body: html`<p>
        Thank you. From now on you receive ${name(list_name ?? '', 'the mails')} from
        ${name(client_name, 'this sender')}. You can close this page.
      </p>
      <small>Every newsletter has a link at its end by which you can unsubscribe.</small>`,
  };
}

const FAILURES = {
  400: ['This did not work', 'Please open the link of the mail again and press the button there.'],
  404: ['This link does not work', 'Please copy the whole link from the mail, or use its button.'],
  405: ['This did not work', 'Please open the link of the mail in a browser.'],
  413: ['This did not work', 'Please open the link of the mail again and press the button there.'],
  415: ['This did not work', 'Please open the link of the mail again and press the button there.'],
  500: ['This did not work', 'Something went wrong on our side. Please try again later.'],
  503: ['Please try again', 'We cannot do this right now. Please try again in a few minutes.'],
} as const;

export function failurePage(status: keyof typeof FAILURES): Page {
  const [title, text] = FAILURES[status];
  return { title, body: html`<p>${text}</p>` };
}

function name(text: string, otherwise = '') {
  return text === '' ? html`${otherwise}` : html`<strong dir="auto">${text}</strong>`;
}

function everythingButton(client: ReturnType<typeof html>, kind: '' | 'second') {
  return html`<button name="scope" value="all" class="${kind}">
    Unsubscribe from everything by ${client}
  </button>`;
}

const STILL = html`<small>
  A mail that is on its way already may still arrive, and so may mail that is about you alone, such
  as a receipt or a result.
</small>`;
