// /unsubscribe/{token} and /confirm/{token}: where the links in mails lead. No key, no cookie, no login:
// the token is the permission. GET shows a page and changes nothing, because mail scanners follow links;
// POST is the page's button, or a mail program's one-click unsubscribe (RFC 8058). A token that is not
// ours is 404 and learns nothing else; whatever goes wrong is said on a page, too.
import { Hono, type Context } from 'hono';
import { isUnavailable } from '../database/failures.ts';
import { confirm, readSubscription, unsubscribe } from '../recipients/consent.ts';
import { readLinkKey, readToken, type LinkPurpose, type LinkRef } from '../recipients/links.ts';
import { FormError, readForm } from './form.ts';
import { pageResponse } from './page.ts';
import {
  confirmedPage,
  confirmPage,
  failurePage,
  unsubscribedPage,
  unsubscribePage,
} from './recipient-page-texts.ts';
import type { Services } from './services.ts';

const GONE = { client_name: '', list_name: null, has_left_list: false, has_left_all: false };

export function recipientPages({ db, log }: Services) {
  const app = new Hono();
  const linkKey = once(() => readLinkKey(db));
  const subscriptionOf = async (ref: LinkRef) => (await readSubscription(db, ref)) ?? GONE;
  const refOf = async (c: Context, purpose: LinkPurpose): Promise<LinkRef> => {
    const ref = readToken(await linkKey(), purpose, c.req.param('token') ?? '');
    if (!ref) throw new NotOurs();
    return ref;
  };

  app.get('/unsubscribe/:token', async (c) => {
    const ref = await refOf(c, 'unsubscribe');
    return pageResponse(c, unsubscribePage(await subscriptionOf(ref)));
  });

  app.post('/unsubscribe/:token', async (c) => {
    const ref = await refOf(c, 'unsubscribe');
    const form = await readForm(c);
    // RFC 8058: List-Unsubscribe=One-Click is all a mail program says. Who asks to be left alone with
    // other words, or none, means the same.
    const scope = form.get('scope') ?? 'list';
    if (scope !== 'list' && scope !== 'all') throw new FormError(400);
    await db.transaction().execute((trx) => unsubscribe(trx, ref, scope));
    return pageResponse(c, unsubscribedPage(await subscriptionOf(ref)));
  });

  app.get('/confirm/:token', async (c) => {
    const ref = await refOf(c, 'confirm');
    return pageResponse(c, confirmPage(await subscriptionOf(ref)));
  });

  app.post('/confirm/:token', async (c) => {
    const ref = await refOf(c, 'confirm');
    await readForm(c);
    await db.transaction().execute((trx) => confirm(trx, ref));
    return pageResponse(c, confirmedPage(await subscriptionOf(ref)));
  });

  for (const path of ['/unsubscribe/:token', '/confirm/:token']) {
    app.all(path, (c) => pageResponse(c, failurePage(405), 405, { allow: 'GET, HEAD, POST' }));
  }
  for (const path of ['/unsubscribe/*', '/confirm/*']) {
    app.all(path, (c) => pageResponse(c, failurePage(404), 404));
  }

  app.onError((error, c) => {
    if (error instanceof NotOurs) return pageResponse(c, failurePage(404), 404);
    if (error instanceof FormError) return pageResponse(c, failurePage(error.status), error.status);
    log.error({ error: error.message }, 'a recipient page failed');
    if (!isUnavailable(error)) return pageResponse(c, failurePage(500), 500);
    return pageResponse(c, failurePage(503), 503, { 'retry-after': '5' });
  });
  return app;
}

/** A token that is malformed, forged, or for another purpose. */
class NotOurs extends Error {}

/** Asked again only where it failed. */
function once<Value>(read: () => Promise<Value>): () => Promise<Value> {
  let reading: Promise<Value> | undefined;
  return () =>
    (reading ??= read().catch((error: unknown) => {
      reading = undefined;
      throw error;
    }));
}
