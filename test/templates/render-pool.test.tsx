// Full renders by threads: the same as here; what a template throws comes back, and where no thread can
// help the render is made here.
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/database/schema.ts';
import { loadTemplates, type Template } from '../../src/templates/registry.ts';
import { RenderPool } from '../../src/templates/render-pool.ts';
import { renderTemplate } from '../../src/templates/render.ts';

const FOLDER = path.join(import.meta.dirname, '../support/templates-for-threads');
const pool = new RenderPool();
let picky: Template;
let shipped: Template;

beforeAll(async () => {
  picky = (await loadTemplates(FOLDER)).get('picky')!;
  shipped = (await loadTemplates()).get('homework-score-published')!;
});
afterAll(() => pool.close());

const contextsOf = (recipient: object) => ({ shared: {}, recipient: recipient as JsonObject });

describe('a full render by a thread', () => {
  it('equals one made here, many at once', async () => {
    const { shared, recipient } = shipped.sample;
    const all = Array.from({ length: 40 }, (_, at) => ({
      shared: shared as JsonObject,
      recipient: { ...(recipient as JsonObject), name: `<Ada> & ${at}` },
    }));
    const rendered = await Promise.all(all.map((contexts) => pool.render(shipped, contexts)));
    expect(rendered).toEqual(
      await Promise.all(all.map((contexts) => renderTemplate(shipped, contexts))),
    );
  });

  it('is made on another thread', async () => {
    const { text } = await pool.render(picky, contextsOf({ name: 'Ada' }));
    expect(text).toMatch(/^Ada on thread [1-9]/u);
  });

  it('fails with what the template throws, and goes on', async () => {
    await expect(pool.render(picky, contextsOf({ name: 'throw' }))).rejects.toThrow('picky');
    await expect(pool.render(picky, contextsOf({ name: 'Ada' }))).resolves.toBeDefined();
  });

  it('is made here where the thread ends', async () => {
    const { text } = await pool.render(picky, contextsOf({ name: 'end the thread' }));
    expect(text).toBe('end the thread on thread 0');
    await expect(pool.render(picky, contextsOf({ name: 'Ada' }))).resolves.toBeDefined();
  });

  it('is made here where the template is not the one of the file', async () => {
    const other = { ...picky, subject: () => 'Other' };
    expect(await pool.render(other, contextsOf({ name: 'Ada' }))).toMatchObject({
      subject: 'Other',
      text: 'Ada on thread 0',
    });
  });
});
