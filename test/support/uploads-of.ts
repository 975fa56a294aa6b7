// Many uploads at once to an API process: a few in CI, many in `npm run test:large`.
import { randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import { anEmail, queueEmail, registerExampleTypes } from './emails.ts';
import type { Harness } from './harness.ts';
import { startApiProcess, watchMemory } from './processes.ts';
import { pdf } from './sample-files.ts';

const MIB = 1024 * 1024;

/** Each request has a file of 5 MiB of its own. Returns the peak memory of the API in MiB. */
export async function uploadAtOnce(h: Harness, count: number): Promise<number> {
  await registerExampleTypes(h);
  const api = await startApiProcess({ DATABASE_URL: h.database.url });
  const memory = watchMemory(api);
  const shared = randomBytes(5 * MIB).toString('latin1');
  const answers = await Promise.all(
    Array.from({ length: count }, (_, index) =>
      queueEmail(
        api,
        h.key,
        anEmail({
          subject: `Report ${index}`,
          attachments: [{ name: `report-${index}.pdf`, content: pdf(`${index}${shared}`) }],
        }),
      ),
    ),
  );
  const peak = await memory.peak();
  expect(await api.stop()).toBe(0);

  const statuses = answers.map(({ status }) => status);
  const stored = statuses.filter((status) => status === 201).length;
  expect(stored).toBeGreaterThan(0);
  expect(statuses.every((status) => status === 201 || status === 503)).toBe(true);
  const { rows } = await h.database.pool.query(
    `select count(*)::integer as emails,
       count(*) filter (where c.sha256 = sha256(c.content))::integer as whole,
       (select count(*)::integer from single_emails) as all_emails,
       (select count(*)::integer from attachment_contents) as contents
     from single_emails e join message_attachments a using (client_id, message_id)
     join attachment_contents c using (client_id, sha256)`,
  );
  expect(rows).toEqual([{ emails: stored, whole: stored, all_emails: stored, contents: stored }]);
  return peak;
}
