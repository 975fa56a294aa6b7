// Row types of the tables in migrations/, column for column. What a column means stands in its
// COMMENT ON there.
import type { Generated, JSONColumnType } from 'kysely';

export type Consent = 'subscribed' | 'pending' | 'unsubscribed';
export type SuppressionReason = 'hard_bounce' | 'complaint' | 'manual';
export const SEND_STATES = [
  'scheduled',
  'queued',
  'sending',
  'paused',
  'completed',
  'cancelled',
] as const;
export type SendState = (typeof SEND_STATES)[number];
export const MESSAGE_STATES = [
  'queued',
  'sending',
  'sent',
  'failed',
  'skipped',
  'unknown',
] as const;
export type MessageState = (typeof MESSAGE_STATES)[number];
export type BreakerReason = 'connection_refused' | 'login_refused' | 'sender_refused' | 'slowed';
export type JsonObject = Record<string, unknown>;

type Json = JSONColumnType<JsonObject>;
type DefaultedJson = JSONColumnType<JsonObject, string | undefined>;

interface Timestamps {
  created_at: Generated<Date>;
  updated_at: Generated<Date>;
}

export type OnUnknown = 'retry' | 'hold';

export interface DB {
  clients: {
    id: Generated<number>;
    key: string;
    name: string;
    callback_url: string | null;
    callback_secret: Generated<string>;
    created_at: Generated<Date>;
  };
  api_keys: {
    client_id: number;
    prefix: string;
    key_sha256: Buffer;
    name: Generated<string>;
    created_at: Generated<Date>;
    last_used_at: Date | null;
    revoked_at: Date | null;
  };
  senders: Timestamps & {
    client_id: number;
    id: string;
    email: string;
    name: string | null;
    reply_to: string | null;
    is_default: Generated<boolean>;
  };
  contacts: Timestamps & {
    client_id: number;
    id: Generated<number>;
    email: string | null;
    email_given: string | null;
    name: string | null;
    consent: Generated<Consent>;
    unsubscribed_at: Date | null;
    attributes: DefaultedJson;
    erased_at: Date | null;
    swept_at: Date | null;
  };
  suppressions: Timestamps & {
    client_id: number;
    address_hash: Buffer;
    email: string | null;
    reason: SuppressionReason | null;
    note: string | null;
    unsubscribed_at: Date | null;
  };
  recipient_lists: Timestamps & {
    client_id: number;
    id: Generated<number>;
    key: string;
    name: string | null;
    type: string | null;
    metadata: DefaultedJson;
    deleted_at: Date | null;
  };
  list_members: Timestamps & {
    client_id: number;
    list_id: number;
    source_object_key: string;
    contact_id: number;
    name: string | null;
    consent: Generated<Consent>;
    metadata: DefaultedJson;
    removed_at: Date | null;
  };
  list_unsubscribes: {
    client_id: number;
    contact_id: number;
    list_id: number;
    unsubscribed_at: Generated<Date>;
  };
  signing_keys: { purpose: 'recipient_links'; secret: Buffer; created_at: Generated<Date> };
  workers: {
    id: Generated<number>;
    hostname: string;
    pid: number;
    lanes: string[];
    pool_ids: Generated<string[]>;
    application_name: string;
    heartbeat_seconds: number;
    dead_after_seconds: number;
    started_at: Generated<Date>;
    heartbeat_at: Generated<Date>;
    stopped_at: Date | null;
    recovered_at: Date | null;
  };
  delivery_pause: {
    one: Generated<boolean>;
    paused_at: Generated<Date>;
    reason: string | null;
  };
  sends: {
    client_id: number;
    id: Generated<string>;
    send_key: string;
    list_id: number;
    list_key: string;
    request_digest: JSONColumnType<Record<string, string>>;
    template_key: string;
    template_version: string;
    requires_consent: boolean;
    on_unknown: OnUnknown;
    sender_id: string;
    sender_email: string;
    sender_name: string | null;
    sender_reply_to: string | null;
    shared_context: DefaultedJson;
    metadata: DefaultedJson;
    state: Generated<SendState>;
    intended: Generated<number>;
    open_chunks: number | null;
    callback_url: string | null;
    callback_chunk_size: number | null;
    scheduled_at: Date | null;
    expires_at: Date | null;
    expired_at: Date | null;
    retried_at: Date | null;
    purged_at: Date | null;
    emptied_at: Date | null;
    created_at: Generated<Date>;
    completed_at: Date | null;
  };
  send_recipients: {
    client_id: number;
    send_id: string;
    position: number;
    contact_id: number;
    source_object_key: string;
    name: string | null;
    context: JSONColumnType<JsonObject> | null;
  };
  fetched_contexts: {
    client_id: number;
    send_id: string;
    position: number;
    context: Json;
  };
  send_chunks: {
    client_id: number;
    send_id: string;
    chunk_no: number;
    first_position: number;
    last_position: number;
    sent: Generated<number>;
    failed: Generated<number>;
    unknown: Generated<number>;
    skipped: Generated<number>;
    next_attempt_at: Date | null;
    leased_by: number | null;
    prepared_at: Date | null;
    fetched_to: number | null;
    fetch_attempts: Generated<number>;
    fetch_failing_since: Date | null;
    last_fetch_error: string | null;
    purged_at: Date | null;
    completed_at: Date | null;
  };
  messages: {
    client_id: number;
    id: Generated<string>;
    send_id: string | null;
    position: number | null;
    contact_id: number | null;
    source_object_key: string | null;
    state: Generated<MessageState>;
    reason: string | null;
    attempts: Generated<number>;
    attempts_at_retry: Generated<number>;
    was_unknown: Generated<boolean>;
    next_attempt_at: Generated<Date>;
    claimed_by: number | null;
    claimed_at: Date | null;
    last_reply: string | null;
    created_at: Generated<Date>;
    settled_at: Date | null;
  };
  email_types: Timestamps & {
    client_id: number;
    email_type: string;
    description: string | null;
    to_addresses: Generated<string[]>;
    cc_addresses: Generated<string[]>;
    bcc_addresses: Generated<string[]>;
    from_email: string | null;
    is_active: Generated<boolean>;
  };
  single_emails: {
    client_id: number;
    message_id: string;
    email_type: string | null;
    subject: string | null;
    template_key: string;
    template_version: string;
    email_data: Json;
    priority_level: number;
    requires_consent: boolean;
    on_unknown: OnUnknown;
    sender_id: string;
    sender_email: string;
    sender_name: string | null;
    sender_reply_to: string | null;
    idempotency_key: string | null;
    request_digest: Buffer | null;
    confirms_list_id: number | null;
    confirms_contact_id: number | null;
    queued_at: Generated<Date>;
    queue_state: Generated<'due' | 'deferred' | 'claimed' | 'settled'>;
    next_attempt_at: Date | null;
    claimed_by: number | null;
    claim_id: string | null;
  };
  message_recipients: {
    client_id: number;
    message_id: string;
    ordinal: number;
    kind: 'to' | 'cc' | 'bcc';
    email: string | null;
    email_given: string | null;
    state: Generated<Exclude<MessageState, 'sending'>>;
    reason: string | null;
    last_reply: string | null;
  };
  attachment_contents: {
    client_id: number;
    sha256: Buffer;
    content: Buffer;
    created_at: Generated<Date>;
  };
  message_attachments: {
    client_id: number;
    message_id: string;
    ordinal: number;
    filename: string;
    content_type: string;
    sha256: Buffer;
  };
  transport_states: {
    transport: string;
    sender_email: Generated<string>;
    recipient_domain: Generated<string>;
    state: Generated<'open' | 'half_open'>;
    reason: BreakerReason;
    last_reply: string;
    opened_at: Generated<Date>;
    retry_at: Date;
    failures: Generated<number>;
  };
  imports: {
    id: Generated<number>;
    client_id: number;
    list_key: string;
    started_at: Generated<Date>;
    touched_at: Generated<Date>;
  };
  import_rows: {
    import_id: number;
    line: number;
    source_object_key: string;
    email: string;
    email_given: string;
    name: string | null;
    has_name: boolean;
    consent: Consent | null;
    metadata: JsonObject | null;
    is_twin: Generated<boolean>;
    carried_consent: Consent | null;
  };
  transport_tokens: { transport: string; tokens: number; refilled_at: Generated<Date> };
}
