// The sitemap. Each route is a few lines in its resource's file: read, call one function of the
// domain, answer.
import { Hono } from 'hono';
import { createMiddleware } from 'hono/factory';
import { invalid, notFound } from '../errors.ts';
import { requireKey } from './auth.ts';
import { client } from './client.ts';
import { contacts } from './contacts.ts';
import { health } from './health.ts';
import { inbox } from './inbox.ts';
import { failed } from './legacy-shape.ts';
import { lists } from './lists.ts';
import { members } from './members.ts';
import { messages } from './messages.ts';
import { problemOf, problemResponse } from './problem.ts';
import { readQuery } from './request.ts';
import { recipientPages } from './recipient-pages.ts';
import { senders } from './senders.ts';
import type { ApiEnv, Services } from './services.ts';
import { sends } from './sends.ts';
import { suppressions } from './suppressions.ts';
import { templates } from './templates.ts';
import { v1 } from './v1.ts';

export function createApp(services: Services) {
  const app = new Hono();
  app.onError((error, c) =>
    c.req.path.startsWith('/api/v1/')
      ? failed(c, error, services.log)
      : problemResponse(c, problemOf(error, services.log)),
  );
  app.notFound((c) =>
    problemResponse(c, problemOf(notFound(`${c.req.method} ${c.req.path}`), services.log)),
  );
  app.route('/', recipientPages(services)); // before the errors of the API: its readers are people
  app.use(decodableUrl);

  app.route('/', health(services));
  if (services.sink) app.route('/inbox', inbox(services.sink));

  app.route('/api/v1', v1(services)); // before /api, whose error shape is another

  const api = new Hono<ApiEnv>();
  api.use(requireKey(services));
  api.use(writesTakeNoQuery);
  api.route('/client', client(services));
  api.route('/senders', senders(services));
  api.route('/contacts', contacts(services));
  api.route('/suppressions', suppressions(services));
  api.route('/recipient-lists', lists(services));
  api.route('/recipient-lists/:key/members', members(services));
  api.route('/', sends(services)); // /recipient-lists/:key/send, /sends
  api.route('/', messages(services)); // /messages, /sends/:id/messages
  api.route('/templates', templates(services));
  app.route('/api', api);
  return app;
}

/** What is no UTF-8 after percent-decoding says nothing; hono would take it literally. */
const decodableUrl = createMiddleware(async (c, next) => {
  const { pathname, search } = new URL(c.req.url);
  if (!isDecodable(pathname)) {
    throw invalid([{ path: 'path', message: 'must be percent-encoded UTF-8' }]);
  }
  if (!isDecodable(search)) {
    throw invalid([{ path: 'query', message: 'must be percent-encoded UTF-8' }]);
  }
  await next();
});

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

/** Like an unknown field, a query that a write would ignore is refused. */
const writesTakeNoQuery = createMiddleware(async (c, next) => {
  if (c.req.method !== 'GET' && c.req.method !== 'HEAD') readQuery(c, {});
  await next();
});
