// What a callback's answer means: contexts member by member, another try, or failure for good. Each
// context is held to what an inline one is held to, on its own, so that one misfit fails one member.
import * as v from 'valibot';
import type { CallbackAnswer } from '../callback/post.ts';
import type { JsonObject } from '../database/schema.ts';
import type { FieldError } from '../errors.ts';
import { freeData } from '../fields.ts';
import { findFlaws } from '../flaws.ts';
import { contextErrors, type Template } from '../templates/registry.ts';

export interface FailedContext {
  reason: 'context_missing' | 'context_invalid';
  /** In words, without personal data. */
  detail: string;
}

export type OneContext =
  { context: JsonObject; failed?: undefined } | { context?: undefined; failed: FailedContext };

export type Fetched =
  /** By source_object_key; one for each that was asked for. */
  | { kind: 'contexts'; contexts: Map<string, OneContext> }
  | { kind: 'later'; detail: string; retryAfterSeconds: number | undefined }
  | ({ kind: 'failed' } & FailedContext);

/** 4xx that say "not now" (RFC 9110, RFC 6585, RFC 8470). */
const LATER = new Set([408, 425, 429]);

export function readAnswer(
  answer: CallbackAnswer,
  asked: readonly { source_object_key: string }[],
  template: Template,
): Fetched {
  if (answer.kind === 'unreachable') {
    return { kind: 'later', detail: answer.detail, retryAfterSeconds: undefined };
  }
  if (answer.kind === 'forbidden') return missing(answer.detail);
  if (answer.kind === 'too_large') return garbage(answer.detail);
  const { status, retryAfterSeconds } = answer;
  const said = `the callback answered ${status}`;
  if (status >= 500 || LATER.has(status)) return { kind: 'later', detail: said, retryAfterSeconds };
  if (status < 200 || status > 299) return missing(said);
  const contexts = parseContexts(answer.body);
  if (typeof contexts === 'string') return garbage(contexts);
  return {
    kind: 'contexts',
    contexts: new Map(
      asked.map(({ source_object_key: key }) => [key, readContext(contexts, key, template)]),
    ),
  };
}

function missing(detail: string): Fetched {
  return { kind: 'failed', reason: 'context_missing', detail };
}

function garbage(detail: string): Fetched {
  return { kind: 'failed', reason: 'context_invalid', detail };
}

/** What is wrong with the answer, where something is. */
function parseContexts(body: Buffer): JsonObject | string {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    return 'the answer of the callback is not JSON';
  }
  const contexts = isObject(value) ? value.contexts : undefined;
  return isObject(contexts) ? contexts : 'the answer of the callback has no object "contexts"';
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function readContext(contexts: JsonObject, key: string, template: Template): OneContext {
  const context = Object.hasOwn(contexts, key) ? contexts[key] : undefined;
  if (context === undefined || context === null) {
    const detail = 'the callback gave no context for this member';
    return { failed: { reason: 'context_missing', detail } };
  }
  const error = errorOf(context, template);
  if (!error) return { context: context as JsonObject };
  const at = error.path === '' ? 'the context' : error.path;
  return { failed: { reason: 'context_invalid', detail: `${at} ${error.message}` } };
}

function errorOf(context: unknown, template: Template): FieldError | undefined {
  const [flaw] = findFlaws(context);
  if (flaw) return flaw; // nested too deep for the next checks, for one
  const checked = v.safeParse(freeData(), context);
  if (!checked.success) return { path: '', message: checked.issues[0].message };
  return contextErrors(template.recipientSchema, context, '')[0];
}
