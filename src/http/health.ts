// Is the process up, and can it serve: for load balancers and orchestrators. No key needed.
import { Hono } from 'hono';
import { pendingMigrations } from '../database/migrate.ts';
import { listBreakers } from '../smtp/breakers.ts';
import type { Services } from './services.ts';

export function health({ db, log }: Services) {
  const app = new Hono();

  app.get('/healthz', (c) => c.json({ status: 'ok' }));

  app.get('/readyz', async (c) => {
    try {
      const pending = await pendingMigrations(db);
      if (pending.length === 0) {
        // A stopped mail server is for people to see: the API accepts mail all the same.
        return c.json({ status: 'ready', transports: await listBreakers(db) });
      }
      return c.json({ status: 'not_ready', reason: 'the database is not migrated', pending }, 503);
    } catch (error) {
      log.warn({ error: (error as Error).message }, 'not ready: the database cannot be reached');
      return c.json({ status: 'not_ready', reason: 'the database cannot be reached' }, 503);
    }
  });

  return app;
}
