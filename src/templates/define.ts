// What a template file in emails/ declares, and the field types its context schemas are made of.
// A template is a pure function of its two contexts and the recipient's links: the same ones give the
// same markup, so a send can be rendered again after a crash. It must not change them. Nothing here does I/O.
import type { ReactElement } from 'react';
import type * as v from 'valibot';
import type { OnUnknown } from '../database/schema.ts';

export { isLink, line, link, moment, paragraphs } from '../fields.ts';

/** `transactional` mail goes to everyone not suppressed; `marketing` mail needs consent, always. */
export type Category = 'transactional' | 'marketing';

/**
 * The schema of one context. A `strictObject` refuses unknown fields, so a misspelt one is an
 * error at the trigger; a `record` takes any fields.
 */
export type ContextSchema = v.GenericSchema<Record<string, unknown>, Record<string, unknown>>;

/** The recipient's own links; each is absent from mail that is not about it. */
export interface Links {
  /** To stop getting such mail. Every marketing mail has it, and must show it. */
  unsubscribe?: string;
  /** To confirm a subscription. */
  confirm?: string;
}

export interface TemplateProps<Shared extends ContextSchema, Recipient extends ContextSchema> {
  shared: v.InferOutput<Shared>;
  recipient: v.InferOutput<Recipient>;
  links: Links;
}

export interface TemplateDefinition<
  Shared extends ContextSchema = ContextSchema,
  Recipient extends ContextSchema = ContextSchema,
> {
  category: Category;
  /**
   * What becomes of a message of which nobody knows whether it was accepted: sent once more, or held
   * until a person decides. By default marketing mail is held, the other is sent once more.
   */
  onUnknown?: OnUnknown;
  /** One line. Control characters in the result are replaced by spaces before it is sent. */
  subject: (props: TemplateProps<Shared, Recipient>) => string;
  /** The part of the context every member of a send shares. */
  sharedSchema: Shared;
  /** The personal part. A member without one counts as `{}`. */
  recipientSchema: Recipient;
  /** Shown by the API, used by preview where a context is omitted. Fits the schemas (tested). */
  sample: { shared: v.InferInput<Shared>; recipient: v.InferInput<Recipient> };
  /** The whole document, `<Html>` included. */
  component: (props: TemplateProps<Shared, Recipient>) => ReactElement;
}

export function onUnknownOf({ onUnknown, category }: TemplateDefinition): OnUnknown {
  return onUnknown ?? (category === 'marketing' ? 'hold' : 'retry');
}

/** Identity, for the types: `subject` and `component` get their props from the two schemas. */
export function defineTemplate<Shared extends ContextSchema, Recipient extends ContextSchema>(
  definition: TemplateDefinition<Shared, Recipient>,
): TemplateDefinition<Shared, Recipient> {
  return definition;
}
