// Bearer keys: a request speaks for one client, or is 401.
import { createMiddleware } from 'hono/factory';
import { authenticate } from '../clients/api-keys.ts';
import { DomainError } from '../errors.ts';
import type { ApiEnv, Services } from './services.ts';

export function requireKey({ db }: Services) {
  return createMiddleware<ApiEnv>(async (c, next) => {
    const key = /^Bearer +(\S+)$/iu.exec(c.req.header('authorization') ?? '')?.[1];
    const client = key === undefined ? undefined : await authenticate(db, key);
    if (!client) {
      throw new DomainError('unauthenticated', 'Send a live API key: Authorization: Bearer <key>.');
    }
    c.set('client', client);
    await next();
  });
}
