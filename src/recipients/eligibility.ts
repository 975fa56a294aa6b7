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
  /** To stand after the join of contacts as `c`. */
  joins: RawBuilder<unknown>;
}

/**
 * For contact `c`, member of the list under `key` when the send was triggered. Where the contact is
 * active in the list today, today's membership gives the consent, else the one of the trigger:
 * a member removed since is still mailed, but not against a consent it never gave.
 */
export function eligibility(rules: SendRules, key: RawBuilder<string>): Eligibility {
  const suppressed = sql`
    left join suppressions sup
      on sup.client_id = c.client_id and sup.address_hash = address_hash(c.client_id, c.email)`;
  if (!rules.requires_consent) {
    return {
      joins: suppressed,
      reason: sql`skip_reason(sup.reason, false, null, null, null, null)`,
    };
  }
  return {
    joins: sql`
      ${suppressed}
      left join list_unsubscribes lu
        on lu.client_id = c.client_id and lu.contact_id = c.id and lu.list_id = ${rules.list_id}
      left join list_members today
        on today.client_id = c.client_id and today.contact_id = c.id and today.list_id = ${rules.list_id}
        and today.removed_at is null
      left join list_members then_
        on then_.client_id = c.client_id and then_.list_id = ${rules.list_id}
        and then_.source_object_key = ${key} and then_.contact_id = c.id`,
    reason: sql`skip_reason(sup.reason, true, c.consent, c.unsubscribed_at,
      coalesce(today.consent, then_.consent), lu.unsubscribed_at)`,
  };
}
