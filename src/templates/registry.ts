// The templates of emails/: found by file name, loaded once at start, never changed while running.
// A template's version is a hash of its source and of every file it imports from emails/, so a send
// accepted under one version is not finished under another without anybody noticing.
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import * as v from 'valibot';
import { DomainError, type FieldError } from '../errors.ts';
import type { JsonObject } from '../database/schema.ts';
import { issuesToErrors } from '../fields.ts';
import { rootFile } from '../root.ts';
import type { ContextSchema, Links, TemplateDefinition } from './define.ts';
import { shownLinks, type ShownLinks } from './shown-links.ts';

export interface Template extends TemplateDefinition {
  key: string;
  version: string;
  /** Which links its mail shows where it has them. */
  shows: ShownLinks;
}

export type Templates = ReadonlyMap<string, Template>;

// Beside this file in the source tree and in the built one alike.
const FOLDER = path.resolve(import.meta.dirname, '../../emails');
/** A version says the same of the source tree and of any build of it. */
const SOURCES = rootFile('emails');
const EXTENSION = import.meta.url.endsWith('.ts') ? '.tsx' : '.js';

/**
 * Loads every emails/<key>.tsx.
 * @throws where a file exports no template, its sample misfits, or marketing mail shows no way out
 */
export async function loadTemplates(folder = FOLDER): Promise<Templates> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(EXTENSION)).sort();
  const templates = await Promise.all(names.map((name) => loadTemplate(path.join(folder, name))));
  return new Map(templates.map((template) => [template.key, template]));
}

/** As {@link loadTemplates}, one of them. */
export async function loadTemplate(file: string): Promise<Template> {
  const key = path.basename(file, EXTENSION);
  const module = (await import(pathToFileURL(file).href)) as { template?: TemplateDefinition };
  if (!module.template) throw new Error(`emails/${path.basename(file)} does not export "template"`);
  const template = { ...module.template, key };
  const errors = [
    ...contextErrors(template.sharedSchema, template.sample.shared, 'sample.shared'),
    ...contextErrors(template.recipientSchema, template.sample.recipient, 'sample.recipient'),
  ];
  if (errors.length > 0) throw new Error(`emails/${key}: ${errors[0]!.path} ${errors[0]!.message}`);
  const shows = await shownLinks(template);
  const loaded = { ...template, version: await versionOf(sourceOf(file)), shows };
  files.set(loaded, file);
  return loaded;
}

const files = new WeakMap<Template, string>();

/** Undefined for one that was put together otherwise. */
export function fileOf(template: Template): string | undefined {
  return files.get(template);
}

/** A template that is not of ours, as in a test, is its own source. */
function sourceOf(file: string): string {
  if (path.dirname(file) !== FOLDER) return file;
  return path.join(SOURCES, `${path.basename(file, EXTENSION)}.tsx`);
}

async function versionOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  for (const [name, text] of [...(await sourcesOf(file))].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${path.basename(name)}\0${text}\0`);
  }
  return hash.digest('hex').slice(0, 16);
}

/** The file and what it imports by relative path, transitively, as far as it lies beside or below. */
async function sourcesOf(
  file: string,
  found = new Map<string, string>(),
): Promise<Map<string, string>> {
  if (found.has(file)) return found;
  const text = await readFile(file, 'utf8');
  found.set(file, text);
  for (const [, specifier] of text.matchAll(/from\s*['"](\.[^'"]+)['"]/gu)) {
    const imported = path.resolve(path.dirname(file), specifier!);
    if (imported.startsWith(SOURCES + path.sep)) await sourcesOf(imported, found);
  }
  return found;
}

/** @throws template_not_found */
export function requireTemplate(templates: Templates, key: string): Template {
  const template = templates.get(key);
  if (template) return template;
  throw new DomainError('template_not_found', `The template "${key}" does not exist.`);
}

/** What does not fit, each with its path below `at`; empty where the context fits. */
export function contextErrors(schema: ContextSchema, context: unknown, at: string): FieldError[] {
  const parsed = v.safeParse(schema, context);
  return parsed.success ? [] : issuesToErrors(parsed.issues, at);
}

/** What a template is rendered with. */
export interface Contexts {
  shared: JsonObject;
  recipient: JsonObject;
  /** None where absent. */
  links?: Links;
}

/** Of these fields, those that one of the template's contexts takes. */
export function knownFields(template: TemplateDefinition, data: JsonObject): JsonObject {
  const known = [fieldsOf(template.sharedSchema), fieldsOf(template.recipientSchema)];
  return Object.fromEntries(
    Object.entries(data).filter(([name]) => known.some((fields) => fields?.has(name) ?? true)),
  );
}

/**
 * Takes apart what a single email gives as one object. A field that only the personal part knows goes
 * there, one that both know goes to both, all else is shared, unknown fields included: checking the
 * result against the schemas names them.
 */
export function splitContexts(template: TemplateDefinition, data: JsonObject): Contexts {
  const shared: JsonObject = {};
  const recipient: JsonObject = {};
  const sharedFields = fieldsOf(template.sharedSchema);
  const recipientFields = fieldsOf(template.recipientSchema);
  for (const [name, value] of Object.entries(data)) {
    const isPersonal = recipientFields?.has(name) ?? false;
    if (isPersonal) recipient[name] = value;
    if (!isPersonal || sharedFields?.has(name)) shared[name] = value;
  }
  return { shared, recipient };
}

/** The fields an object schema knows; undefined where it takes any. */
function fieldsOf(schema: ContextSchema): Set<string> | undefined {
  const { entries } = schema as { entries?: Record<string, unknown> };
  return entries && new Set(Object.keys(entries));
}
