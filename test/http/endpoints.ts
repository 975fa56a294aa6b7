// Every endpoint under /api, with a request that it takes: what the tests of keys and of hostile input
// go through. An endpoint that is missing here is not tested there, so add new ones.
import { scoreSend } from '../support/harness.ts';

export interface Endpoint {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  path: string;
  /** A body that is accepted; absent where the endpoint takes none. */
  body?: Record<string, unknown>;
  /** Paths of the fields that may hold any object. */
  free?: string[];
  /** An empty body counts as `{}`. */
  optional?: true;
  /** What it names is not there. */
  missing?: true;
  /** An array whose items are refused each on its own. */
  items?: string;
  /** Most MiB of the body; 1 where absent. */
  mib?: number;
  /** Of a paged list, where `limit` and `cursor` are read. */
  paged?: true;
}

const ID = '019af5d1-0000-7000-8000-000000000000';

export const ENDPOINTS: Endpoint[] = [
  {
    method: 'PUT',
    path: '/api/client/context-callback',
    body: {
      url: 'https://provider.example/contexts',
      secret: 'whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX',
    },
  },
  { method: 'GET', path: '/api/client/context-callback' },
  {
    method: 'PUT',
    path: '/api/senders/news',
    body: { email: 'a@b.example', name: 'A', reply_to: 'c@d.example', default: true },
  },
  { method: 'GET', path: '/api/senders', paged: true },
  { method: 'DELETE', path: '/api/senders/news' },
  {
    method: 'PUT',
    path: '/api/contacts/a@b.example',
    body: { name: 'A', consent: 'pending', attributes: { a: 'b' } },
    free: ['attributes'],
  },
  { method: 'GET', path: '/api/contacts/a@b.example' },
  { method: 'DELETE', path: '/api/contacts/a@b.example' },
  {
    method: 'PUT',
    path: '/api/suppressions/a@b.example',
    body: { reason: 'manual', note: 'asked' },
  },
  { method: 'GET', path: '/api/suppressions', paged: true },
  { method: 'DELETE', path: '/api/suppressions/a@b.example' },
  {
    method: 'PUT',
    path: '/api/recipient-lists/made',
    body: { name: 'A', type: 't', metadata: { a: 'b' } },
    free: ['metadata'],
  },
  { method: 'GET', path: '/api/recipient-lists', paged: true },
  { method: 'GET', path: '/api/recipient-lists/seeded' },
  { method: 'DELETE', path: '/api/recipient-lists/made' },
  { method: 'GET', path: '/api/recipient-lists/seeded/members', paged: true },
  {
    method: 'PUT',
    path: '/api/recipient-lists/made/members/m1',
    body: { email: 'a@b.example', name: 'A', consent: 'pending', metadata: { a: 'b' } },
    free: ['metadata'],
  },
  { method: 'DELETE', path: '/api/recipient-lists/made/members/m1' },
  {
    method: 'POST',
    path: '/api/recipient-lists/made/members/bulk-upsert',
    body: {
      members: [
        { source_object_key: 'k', email: 'a@b.example', name: 'A', consent: 'pending' },
        { source_object_key: 'l', email: 'c@d.example', metadata: { a: 'b' } },
      ],
    },
    free: ['members.1.metadata'],
    items: 'members',
    mib: 32,
  },
  {
    method: 'POST',
    path: '/api/recipient-lists/made/members/reconcile',
    body: {
      members: [
        { source_object_key: 'k', email: 'a@b.example', name: 'A', consent: 'pending' },
        { source_object_key: 'l', email: 'c@d.example', metadata: { a: 'b' } },
      ],
      remove_absent: false,
      dry_run: false,
    },
    free: ['members.1.metadata'],
    items: 'members',
    mib: 32,
  },
  { method: 'POST', path: '/api/recipient-lists/made/members/import' }, // takes no JSON
  { method: 'GET', path: '/api/recipient-lists/seeded/members.csv' },
  {
    method: 'POST',
    path: '/api/recipient-lists/seeded/members/none/confirmation',
    body: {
      template_key: 'confirm-subscription',
      from_email: 'courses',
      shared_context: { list_name: 'A' },
    },
    free: ['shared_context'],
    missing: true,
    optional: true,
  },
  {
    method: 'POST',
    path: '/api/recipient-lists/seeded/confirmations',
    body: {
      template_key: 'confirm-subscription',
      from_email: 'courses',
      shared_context: { list_name: 'A' },
    },
    free: ['shared_context'],
    optional: true,
  },
  {
    method: 'POST',
    path: '/api/recipient-lists/seeded/send',
    body: {
      ...scoreSend({ metadata: { a: 'b' }, from_email: 'courses', requires_consent: true }),
      recipient_context: { m1: { name: 'A', details: [{ label: 'Q', points: 1 }] } },
    },
    free: ['metadata'],
    mib: 32,
  },
  { method: 'GET', path: '/api/sends', paged: true },
  { method: 'GET', path: `/api/sends/${ID}` },
  { method: 'GET', path: `/api/sends/by-key/seeded` },
  ...['pause', 'resume', 'cancel', 'retry-failed'].map((action): Endpoint => ({
    method: 'POST',
    path: `/api/sends/${ID}/${action}`,
    body: {},
    optional: true,
    missing: true,
  })),
  { method: 'GET', path: `/api/sends/${ID}/messages`, paged: true },
  { method: 'GET', path: '/api/messages?email=a@b.example', paged: true },
  { method: 'GET', path: `/api/messages/${ID}` },
  {
    method: 'POST',
    path: `/api/messages/${ID}/resolve`,
    body: { outcome: 'sent' },
    missing: true,
  },
  { method: 'GET', path: '/api/templates', paged: true },
  { method: 'GET', path: '/api/templates/default_template' },
  {
    method: 'POST',
    path: '/api/templates/default_template/preview',
    body: { shared_context: { a: 'b' }, recipient_context: { c: 'd' } },
    free: ['shared_context', 'recipient_context'],
  },
  {
    method: 'POST',
    path: '/api/templates/default_template/test-send',
    body: {
      to: 'a@b.example',
      from_email: 'courses',
      shared_context: { a: 'b' },
      recipient_context: { c: 'd' },
    },
    free: ['shared_context', 'recipient_context'],
  },
];
