// Everything a run can be held to, read in one statement, so that it is one state of the database.
import type pg from 'pg';
import { EMAILS } from './calls.ts';
import type { Consent } from './list.ts';

export interface SeenMember {
  position: number;
  /** Null once the person is erased. */
  email: string | null;
  key: string;
  message_id: string | null;
  state: string | null;
  reason: string | null;
  was_unknown: boolean;
}

export interface SeenSend {
  id: string;
  send_key: string;
  state: string;
  is_completed: boolean;
  counts: Record<string, number>;
  members: SeenMember[];
}

export interface SeenRow {
  list: string;
  key: string;
  email: string;
  consent: Consent;
  name: string | null;
  removed: boolean;
}

export interface Observation {
  sends: SeenSend[];
  rows: SeenRow[];
  people: { email: string; left_all: boolean; left_lists: string[] }[];
  suppressions: { email: string; reason: string | null; left: boolean; has_address: boolean }[];
}

const OBSERVE = `
  select
    (select coalesce(json_agg(json_build_object(
        'id', s.id, 'send_key', s.send_key, 'state', s.state, 'is_completed', s.completed_at is not null,
        'counts', json_build_object('intended', n.intended, 'queued', n.queued, 'sent', n.sent,
          'failed', n.failed, 'skipped', n.skipped, 'unknown', n.unknown),
        'members', (
          select coalesce(json_agg(json_build_object(
            'position', r.position, 'email', c.email, 'key', r.source_object_key, 'message_id', m.id,
            'state', m.state, 'reason', m.reason, 'was_unknown', coalesce(m.was_unknown, false))
            order by r.position), '[]')
          from send_recipients r
          join contacts c on c.client_id = r.client_id and c.id = r.contact_id
          left join messages m
            on m.client_id = r.client_id and m.send_id = r.send_id and m.position = r.position
          where r.client_id = s.client_id and r.send_id = s.id)) order by s.id), '[]')
      from sends s join reporting.send_counts n on n.send_id = s.id) as sends,
    (select coalesce(json_agg(json_build_object('list', l.key, 'key', m.source_object_key,
        'email', c.email, 'consent', m.consent, 'name', m.name, 'removed', m.removed_at is not null)), '[]')
      from list_members m
      join recipient_lists l on l.client_id = m.client_id and l.id = m.list_id
      join contacts c on c.client_id = m.client_id and c.id = m.contact_id) as rows,
    (select coalesce(json_agg(json_build_object('email', c.email,
        'left_all', c.unsubscribed_at is not null,
        'left_lists', (
          select coalesce(json_agg(l.key order by l.key), '[]')
          from list_unsubscribes u
          join recipient_lists l on l.client_id = u.client_id and l.id = u.list_id
          where u.client_id = c.client_id and u.contact_id = c.id))), '[]')
      from contacts c where c.email is not null) as people,
    (select coalesce(json_agg(json_build_object('email', e.email, 'reason', s.reason,
        'left', s.unsubscribed_at is not null, 'has_address', s.email is not null)), '[]')
      from clients k
      cross join unnest($1::text[]) e(email)
      join suppressions s
        on s.client_id = k.id and s.address_hash = address_hash(k.id, e.email)) as suppressions`;

/** The database holds one client. */
export async function observe(pool: pg.Pool): Promise<Observation> {
  const { rows } = await pool.query<Observation>(OBSERVE, [EMAILS]);
  return rows[0]!;
}
