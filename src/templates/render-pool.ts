// Full renders on all cores: threads that start with the first render and end after a while without one,
// so a process whose templates are compiled never has any.
import { availableParallelism } from 'node:os';
import { Piscina } from 'piscina';
import { fileOf, type Contexts, type Template } from './registry.ts';
import type { RenderAnswer, RenderTask } from './render-thread.ts';
import { renderTemplate, type Rendered } from './render.ts';

const IDLE_MS = 10_000;

export class RenderPool {
  #threads: Piscina<RenderTask, RenderAnswer> | undefined;
  #closed = false;

  /** The template gets a copy of the contexts. @throws what it throws */
  async render(template: Template, contexts: Contexts): Promise<Rendered> {
    const file = fileOf(template);
    const answer = file && (await this.#ask({ file, version: template.version, contexts }));
    // A thread that failed says nothing of the mail.
    if (!answer || answer === 'other version')
      return renderTemplate(template, structuredClone(contexts));
    if ('error' in answer) throw new Error(answer.error);
    return answer.rendered;
  }

  #ask(task: RenderTask): Promise<RenderAnswer | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    this.#threads ??= startThreads();
    return this.#threads.run(task).catch(() => undefined);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#threads?.destroy();
  }
}

function startThreads(): Piscina<RenderTask, RenderAnswer> {
  const isSource = import.meta.url.endsWith('.ts');
  return new Piscina({
    filename: new URL(`./render-thread.${isSource ? 'ts' : 'js'}`, import.meta.url).href,
    // Templates are TSX in the source tree.
    execArgv: isSource ? ['--import', import.meta.resolve('tsx')] : [],
    minThreads: 0,
    maxThreads: availableParallelism(),
    idleTimeout: IDLE_MS,
    concurrentTasksPerWorker: 1,
  });
}
