// /api/templates
import { toJsonSchema } from '@valibot/to-json-schema';
import { Hono } from 'hono';
import * as v from 'valibot';
import { resolveSender } from '../clients/senders.ts';
import { invalid, notFound } from '../errors.ts';
import { address, freeData, key } from '../fields.ts';
import { getMessage } from '../messages/messages.ts';
import { createSingle, URGENT_PRIORITY } from '../messages/create-single.ts';
import { page } from '../paging.ts';
import type { ContextSchema, Links } from '../templates/define.ts';
import { contextErrors, type Contexts, type Template } from '../templates/registry.ts';
import { renderTemplate } from '../templates/render.ts';
import { SAMPLE_LINKS } from '../templates/shown-links.ts';
import type { ApiEnv, Services } from './services.ts';
import { keyParam, noQuery, PAGE_QUERY, readJson, readQuery } from './request.ts';

const contexts = {
  shared_context: v.optional(v.nullable(freeData())),
  recipient_context: v.optional(v.nullable(freeData())),
};
const PreviewInput = v.strictObject(contexts);
const TestSendInput = v.strictObject({
  to: address(),
  from_email: v.optional(v.nullable(key())),
  ...contexts,
});

export function templates({ db, templates }: Services) {
  const app = new Hono<ApiEnv>();
  const find = (templateKey: string): Template => {
    const template = templates.get(templateKey);
    if (!template) throw notFound(`The template "${templateKey}"`);
    return template;
  };

  app.get('/', async (c) => {
    const all = [...templates.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
    const found = await page(
      readQuery(c, PAGE_QUERY),
      [v.string()],
      (one: Template) => [one.key],
      (after, limit) =>
        Promise.resolve(
          all.filter((one) => after === undefined || one.key > after[0]).slice(0, limit),
        ),
    );
    return c.json({ templates: found.rows.map(templateBody), next_cursor: found.next_cursor });
  });

  app.get('/:key', noQuery, (c) => c.json({ template: templateBody(find(keyParam(c, 'key'))) }));

  app.post('/:key/preview', async (c) => {
    const template = find(keyParam(c, 'key'));
    const chosen = chooseContexts(template, await readJson(c, PreviewInput));
    return c.json(await renderTemplate(template, { ...chosen, links: linksOf(template) }));
  });

  app.post('/:key/test-send', async (c) => {
    const template = find(keyParam(c, 'key'));
    const input = await readJson(c, TestSendInput);
    const chosen = chooseContexts(template, input);
    const sender = await resolveSender(db, c.var.client.id, input.from_email ?? undefined);
    const id = await db.transaction().execute((trx) =>
      createSingle(trx, {
        client_id: c.var.client.id,
        template,
        email_data: { ...chosen.shared, ...chosen.recipient },
        subject: null,
        priority_level: URGENT_PRIORITY,
        email_type: null,
        sender,
        recipients: [{ kind: 'to', address: input.to }],
      }),
    );
    c.header('location', `/api/messages/${id}`);
    return c.json({ message: await getMessage(db, c.var.client.id, id!) }, 202);
  });

  return app;
}

/** The given contexts, the sample's where omitted. @throws validation_failed */
function chooseContexts(template: Template, given: v.InferOutput<typeof PreviewInput>): Contexts {
  const chosen = {
    shared: given.shared_context ?? template.sample.shared,
    recipient: given.recipient_context ?? template.sample.recipient,
  };
  const errors = [
    ...contextErrors(template.sharedSchema, chosen.shared, 'shared_context'),
    ...contextErrors(template.recipientSchema, chosen.recipient, 'recipient_context'),
  ];
  if (errors.length > 0) throw invalid(errors);
  return chosen;
}

/** Stand-ins for the links that this template's mail shows. */
function linksOf({ category, shows }: Template): Links {
  return {
    ...(category === 'marketing' && { unsubscribe: SAMPLE_LINKS.unsubscribe }),
    ...(shows.confirm && { confirm: SAMPLE_LINKS.confirm }),
  };
}

function templateBody(template: Template) {
  return {
    key: template.key,
    category: template.category,
    subject: template.subject({
      shared: template.sample.shared,
      recipient: template.sample.recipient,
      links: {},
    }),
    shared_schema: jsonSchema(template.sharedSchema),
    recipient_schema: jsonSchema(template.recipientSchema),
    sample: {
      shared_context: template.sample.shared,
      recipient_context: template.sample.recipient,
    },
    version: template.version,
  };
}

/** Checks that JSON Schema has no words for are left out; the API still makes them. */
function jsonSchema(schema: ContextSchema) {
  return toJsonSchema(schema, {
    errorMode: 'ignore',
    overrideAction: ({ valibotAction, jsonSchema }) => {
      if (valibotAction.type !== 'metadata') return undefined;
      return {
        ...jsonSchema,
        ...(valibotAction as v.MetadataAction<string, { maxLength: number }>).metadata,
      };
    },
  });
}
