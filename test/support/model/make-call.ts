// Calls of the model test, made: over HTTP, as clients and recipients make them. What they say is cut down
// to what the model says, too.
import { linkTo, readLinkKey } from '../../../src/recipients/links.ts';
import type { Answer, Api, Harness } from '../harness.ts';
import { bodyOf, type Call, type DrawnCall } from './calls.ts';
import type { Given } from './list.ts';
import type { Observation } from './observe.ts';

/** With the keys and the link of the moment. */
export async function resolveCall(
  h: Harness,
  call: DrawnCall,
  { seen, callbackUrl, person }: { seen: Observation; callbackUrl: string; person: string },
): Promise<Call> {
  if (call.do === 'trigger') {
    const active = seen.rows.filter((row) => row.list === call.list && !row.removed);
    return { ...call, body: bodyOf(call, active.map((row) => row.key).sort(), callbackUrl) };
  }
  if ('nth' in call) {
    const { nth, ...control } = call;
    return { ...control, send: seen.sends[nth % seen.sends.length]?.send_key };
  }
  if (call.do !== 'unsubscribe') return call;
  const { rows } = await h.database.pool.query(
    `select c.client_id, c.id as contact_id, l.id as list_id
     from contacts c join recipient_lists l on l.client_id = c.client_id
     where c.email = $1 and l.key = $2`,
    [call.email, call.list],
  );
  if (!rows[0]) return { ...call, person, link: undefined };
  const linker = { key: await readLinkKey(h.database.db), baseUrl: h.url, mailto: undefined };
  return { ...call, person, link: linkTo(linker, { purpose: 'unsubscribe', ...rows[0] }) };
}

export interface Said {
  said: string;
  /** By retry-failed. */
  retried: number;
}

export async function makeCall(
  h: Harness,
  client: { api: Api; key: string },
  call: Call,
  seen: Observation,
): Promise<Said> {
  if (call.do === 'unsubscribe') return { said: await leave(call), retried: 0 };
  if (call.do === 'import')
    return { said: countsOf(await importFile(h, client.key, call)), retried: 0 };
  const { method, path, body } = requestOf(call, seen);
  if (path === undefined) return { said: 'no send', retried: 0 };
  const answer = await client.api(method, path, body);
  const retried = (answer.body?.retried as number | undefined) ?? 0;
  if (call.do === 'bulk' || call.do === 'reconcile') return { said: countsOf(answer), retried };
  if (answer.status === 202) {
    return { said: `202 intended ${answer.body.send.counts.intended}`, retried };
  }
  return { said: String(answer.status), retried };
}

type Request = { method: string; path: string | undefined; body?: unknown };

function requestOf(
  call: Exclude<Call, { do: 'unsubscribe' | 'import' }>,
  { sends }: Observation,
): Request {
  const members = (list: string) => `/api/recipient-lists/${list}/members`;
  switch (call.do) {
    case 'put': {
      const { source_object_key, ...body } = call.member;
      return { method: 'PUT', path: `${members(call.list)}/${source_object_key}`, body };
    }
    case 'bulk':
      return {
        method: 'POST',
        path: `${members(call.list)}/bulk-upsert`,
        body: { members: call.members },
      };
    case 'reconcile': {
      const { do: _do, list, ...body } = call;
      return { method: 'POST', path: `${members(list)}/reconcile`, body };
    }
    case 'remove':
      return { method: 'DELETE', path: `${members(call.list)}/${call.key}` };
    case 'trigger':
      return { method: 'POST', path: `/api/recipient-lists/${call.list}/send`, body: call.body };
    case 'suppress':
      return {
        method: 'PUT',
        path: `/api/suppressions/${call.email}`,
        body: { reason: call.reason },
      };
    case 'unsuppress':
      return { method: 'DELETE', path: `/api/suppressions/${call.email}` };
    case 'erase':
      return { method: 'DELETE', path: `/api/contacts/${call.email}` };
    default: {
      const send = sends.find((one) => one.send_key === call.send);
      return { method: 'POST', path: send && `/api/sends/${send.id}/${call.do}` };
    }
  }
}

function countsOf({ status, body }: Answer): string {
  if (status !== 200) return `${status} ${JSON.stringify(body)}`;
  const { created, updated, unchanged, removed, rejected_count, rejected } = body;
  return `200 ${JSON.stringify({
    created,
    updated,
    unchanged,
    removed,
    rejected: rejected_count ?? rejected.length,
  })}`;
}

async function importFile(
  h: Harness,
  key: string,
  { list, format, members }: Extract<Call, { do: 'import' }>,
): Promise<Answer> {
  const response = await fetch(`${h.url}/api/recipient-lists/${list}/members/import`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': format === 'csv' ? 'text/csv' : 'application/x-ndjson',
    },
    body: format === 'csv' ? csvOf(members) : members.map((one) => JSON.stringify(one)).join('\n'),
  });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

function csvOf(members: readonly Given[]): string {
  const rows = members.map(({ source_object_key, email, name, consent }) =>
    [source_object_key, email, name ?? '', consent ?? ''].join(','),
  );
  return ['source_object_key,email,name,consent', ...rows].join('\r\n');
}

/** As mail programs do it (RFC 8058); from everything by the page's other button. */
async function leave({ link, scope }: Extract<Call, { do: 'unsubscribe' }>): Promise<string> {
  if (link === undefined) return '200';
  const body = new URLSearchParams(
    scope === 'all' ? { scope } : { 'List-Unsubscribe': 'One-Click' },
  );
  return String((await fetch(link, { method: 'POST', redirect: 'error', body })).status);
}
