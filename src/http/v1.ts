// /api/v1: the single-email API. Its own error shape, and one rule of its own: any failure of the
// database while an email is queued, also while the key is checked, is the documented 500.
import { Hono } from 'hono';
import { DomainError, notFound } from '../errors.ts';
import { requireKey } from './auth.ts';
import { emailTypes } from './email-types.ts';
import { emails } from './emails.ts';
import { answer, failed } from './legacy-shape.ts';
import { problemOf } from './problem.ts';
import type { ApiEnv, Services } from './services.ts';

const NOT_REGISTERED = 'Failed to register the request into email queue';

export function v1(services: Services) {
  const app = new Hono<ApiEnv>();
  app.onError((error, c) => {
    const queueing = c.req.method === 'POST' && c.req.path === '/api/v1/emails/queue';
    const isOurs = error instanceof DomainError; // such as too many uploads at once: 503
    if (queueing && !isOurs && problemOf(error, services.log).status >= 500) {
      return answer(c, { success: false, message: NOT_REGISTERED, data: null }, 500);
    }
    return failed(c, error, services.log);
  });
  app.use(requireKey(services));
  app.route('/emails', emails(services));
  app.route('/email-types', emailTypes(services));
  app.all('*', (c) => failed(c, notFound(`${c.req.method} ${c.req.path}`), services.log));
  return app;
}
