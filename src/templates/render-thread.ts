// A thread of the render pool. It loads a template when it first meets it; what the template throws is an
// answer, as it says something of the mail, unlike the end of the thread.
import { loadTemplate, type Contexts, type Template } from './registry.ts';
import { renderTemplate, type Rendered } from './render.ts';

export interface RenderTask {
  /** The template's module. */
  file: string;
  version: string;
  contexts: Contexts;
}

/** `other version`: the file was changed since the process loaded it. */
export type RenderAnswer = { rendered: Rendered } | { error: string } | 'other version';

const loaded = new Map<string, Promise<Template>>();

export default async function renderTask(task: RenderTask): Promise<RenderAnswer> {
  const { file, version, contexts } = task;
  if (!loaded.has(file)) loaded.set(file, loadTemplate(file));
  const template = await loaded.get(file)!;
  if (template.version !== version) return 'other version';
  try {
    return { rendered: await renderTemplate(template, contexts) };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}
