// Who may be mailed: the one rule, as SQL that prepare and claim put into their statements. The
// order of reasons is that of skip_reason() in the database; this file finds what it judges by.
import { sql, type RawBuilder } from 'kysely';

export interface SendRules {
  list_id: number;
  requires_consent: boolean;
}

export interface Eligibility {
  /** Null where the member may be mailed. */
  reason: RawBuilder<string | null>;
  /** To stand after the table that has `contact`; gives the contact as `c`. */
  joins: RawBuilder<unknown>;
}

/** Nobody can be mailed whose address has been erased. */
const suppressed = sql`case when c.email is null then 'manual' else suppression.reason end`;

/**
 * For the contact `contact`, member of the list under `key` when the send was triggered. Where the
 * contact is active in the list today, today's membership gives the consent, else the one of the
 * trigger: a member removed since is still mailed, but not against a consent it never gave.
 *
 * Each look-up is a lateral with a limit, so that it is one index probe whatever the planner knows:
 * it plans chunks of a list that was imported a second ago, before any statistics exist.
 */
export function eligibility(
  clientId: number,
  rules: SendRules,
  contact: RawBuilder<number>,
  key: RawBuilder<string>,
): Eligibility {
  const who = sql`
    cross join lateral (
      select id, email, email_given, name, consent, unsubscribed_at from contacts
      where client_id = ${clientId} and id = ${contact} limit 1
    ) c
    left join lateral (
      select reason, unsubscribed_at from suppressions
      where client_id = ${clientId} and address_hash = address_hash(${clientId}::integer, c.email) limit 1
    ) suppression on true`;
  if (!rules.requires_consent) {
    return {
      joins: who,
      reason: sql`skip_reason(${suppressed}, false, null, null, null, null)`,
    };
  }
  return {
    joins: sql`
      ${who}
      left join lateral (
        select unsubscribed_at from list_unsubscribes
        where client_id = ${clientId} and contact_id = c.id and list_id = ${rules.list_id} limit 1
      ) left_list on true
      left join lateral (
        select consent from list_members
        where client_id = ${clientId} and contact_id = c.id and list_id = ${rules.list_id}
          and removed_at is null limit 1
      ) today on true
      left join lateral (
        select consent from list_members
        where client_id = ${clientId} and list_id = ${rules.list_id} and source_object_key = ${key}
          and contact_id = c.id limit 1
      ) at_trigger on true`,
    reason: sql`skip_reason(${suppressed}, true, c.consent, coalesce(c.unsubscribed_at, suppression.unsubscribed_at),
      coalesce(today.consent, at_trigger.consent), left_list.unsubscribed_at)`,
  };
}
