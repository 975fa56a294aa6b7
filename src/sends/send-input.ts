// The shape of a trigger. What is checked here needs nothing but the request; whether list, template,
// sender and contexts fit each other is looked at after a replay has been ruled out.
import * as v from 'valibot';
import type { JsonObject } from '../database/schema.ts';
import { freeData, jsonObject, key, line, timestamp } from '../fields.ts';

/** Contexts keyed by source_object_key. Not v.record, which drops a key such as "constructor". */
function contextsByKey() {
  return v.pipe(
    jsonObject(),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      for (const [memberKey, value] of Object.entries(dataset.value)) {
        const parsed = v.safeParse(freeData(), value);
        if (parsed.success) continue;
        addIssue({
          message: parsed.issues[0].message,
          path: [{ type: 'object', origin: 'value', input: dataset.value, key: memberKey, value }],
        });
      }
    }),
    v.transform((contexts) => contexts as Record<string, JsonObject>),
  );
}

const MOST_CALLBACK_CHUNK_SIZE = 1000;

function callbackChunkSize() {
  const message = `must be a whole number from 1 to ${MOST_CALLBACK_CHUNK_SIZE}`;
  return v.pipe(
    v.number(),
    v.integer(message),
    v.minValue(1, message),
    v.maxValue(MOST_CALLBACK_CHUNK_SIZE, message),
  );
}

export const SendInput = v.pipe(
  v.strictObject({
    send_key: v.pipe(
      line(255),
      v.check((text) => text !== '.' && text !== '..', 'must not be "." or ".."'), // in a URL they go
    ),
    template_key: line(255),
    from_email: v.optional(v.nullable(key())),
    shared_context: v.optional(v.nullable(freeData())),
    recipient_context: v.optional(v.nullable(contextsByKey())),
    context_callback: v.optional(
      v.nullable(
        v.pipe(
          jsonObject(), // strictObject alone takes an array for an object without fields
          v.strictObject({
            url: v.optional(v.nullable(v.string())),
            chunk_size: v.optional(v.nullable(callbackChunkSize())),
          }),
        ),
      ),
    ),
    requires_consent: v.optional(v.nullable(v.boolean())),
    scheduled_at: v.optional(v.nullable(timestamp())),
    expires_at: v.optional(v.nullable(timestamp())),
    metadata: v.optional(v.nullable(freeData())),
  }),
  v.forward(
    v.check(
      (input) => isAbsent(input.context_callback) || isAbsent(input.recipient_context),
      'must not be given together with recipient_context',
    ),
    ['context_callback'],
  ),
  v.forward(
    v.check(
      ({ scheduled_at, expires_at }) =>
        isAbsent(scheduled_at) ||
        isAbsent(expires_at) ||
        Date.parse(expires_at) > Date.parse(scheduled_at),
      'must be after scheduled_at',
    ),
    ['expires_at'],
  ),
);
export type SendInput = v.InferOutput<typeof SendInput>;

function isAbsent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}
