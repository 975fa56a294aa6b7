// What is mailed in every run, ours and the references': the same template with the same two contexts.
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { compose, listIdOf, messageIdOf } from '../../src/smtp/compose.ts';
import { loadTemplates, requireTemplate } from '../../src/templates/registry.ts';
import { renderTemplate } from '../../src/templates/render.ts';

export const TEMPLATE = 'homework-score-published';
export const SENDER = 'courses@school.example';
export const SHARED = {
  course_title: 'ML Zoomcamp 2026',
  homework_title: 'Homework 1',
  scores_url: 'https://courses.example.org/ml-zoomcamp-2026/homework-1/scores',
};

type Personal = Record<string, string | number>;
export type PersonalOf = (n: number) => Personal | undefined;

export const personalOf = (n: number): Personal => ({
  name: `Member ${n}`,
  score: n % 9,
  max_score: 8,
  score_url: `${SHARED.scores_url}/${n}`,
});

/** What fits the 32 MiB and the 2,000,000 values that a trigger may have, also for a million. */
export const shortPersonalOf: PersonalOf = (n) => (n % 10 === 0 ? undefined : { score: n % 9 });

export function addressOf(n: number): string {
  return `m${n}@list.example`;
}

/** The body of a trigger. */
export function triggerOf(sendKey: string, members: number, personal: PersonalOf): string {
  const contexts: Record<string, Personal> = {};
  for (let n = 1; n <= members; n++) {
    const context = personal(n);
    if (context) contexts[`m${n}`] = context;
  }
  return JSON.stringify({
    send_key: sendKey,
    template_key: TEMPLATE,
    shared_context: SHARED,
    recipient_context: contexts,
  });
}

/** One of our messages, as it goes over the wire; returns its file. */
export async function writeReadyMade(folder: string): Promise<{ file: string; bytes: number }> {
  const template = requireTemplate(await loadTemplates(), TEMPLATE);
  const raw = await compose({
    messageId: messageIdOf('01980000-0000-7000-8000-000000000000', SENDER),
    date: new Date(),
    from: { address: SENDER },
    to: [{ name: 'Member 12345', address: addressOf(12_345) }],
    content: await renderTemplate(template, { shared: SHARED, recipient: personalOf(12_345) }),
    listId: listIdOf('list', 'bench', SENDER),
  });
  const file = path.join(folder, 'ready-made.eml');
  await writeFile(file, raw);
  return { file, bytes: raw.length };
}

export function readReadyMade(): Promise<Buffer> {
  return readFile(process.env.BENCH_RAW!);
}
