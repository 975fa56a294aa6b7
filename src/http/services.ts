// What every route works with.
import type { CallbackPolicy } from '../callback/post.ts';
import type pg from 'pg';
import type { Client } from '../clients/clients.ts';
import type { AttachmentLimits } from '../config.ts';
import type { Database } from '../database/connect.ts';
import type { Logger } from '../log.ts';
import type { Sink } from '../smtp/sink.ts';
import type { Templates } from '../templates/registry.ts';

export interface Services {
  db: Database;
  /** Of `db`, for COPY. */
  pool: pg.Pool;
  log: Logger;
  templates: Templates;
  attachments: AttachmentLimits;
  /** Where context callbacks may go. */
  callback: CallbackPolicy;
  /** The local mail server of `dev`, shown at /inbox. */
  sink?: Sink;
}

export interface ApiEnv {
  /** The client the request's key speaks for. */
  Variables: { client: Client };
}
