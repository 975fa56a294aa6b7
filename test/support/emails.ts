// Calls of the single-email API, as a form.
import type { Answer, Harness } from './harness.ts';

export type FormFields = Record<
  string,
  string | string[] | { name: string; type?: string; content: Uint8Array | string }[]
>;

/** A multipart body; an array of texts repeats the field, an array of files attaches them. */
export function formOf(fields: FormFields): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (typeof one === 'string') form.append(name, one);
      else form.append(name, new File([one.content], one.name, { type: one.type ?? '' }));
    }
  }
  return form;
}

export async function queueEmail(
  h: { url: string },
  key: string,
  fields: FormFields,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(`${h.url}/api/v1/emails/queue`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, ...headers },
    body: formOf(fields),
  });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

/** A request that is taken as it is; `more` changes it. */
export function anEmail(more: FormFields = {}): FormFields {
  return {
    email_type: 'welcome',
    subject: 'Welcome to Our Platform',
    email_template: 'default_template',
    email_data: JSON.stringify({ name: 'John Doe', company: 'Acme Corp' }),
    ...more,
  };
}

/** The types of the documentation, for the harness's client. */
export async function registerExampleTypes({ database }: Harness): Promise<void> {
  const { createExampleTypes } = await import('../../src/emails-queue/email-types.ts');
  await database.db.transaction().execute(async (trx) => {
    const client = await trx
      .selectFrom('clients')
      .select('id')
      .where('key', '=', 'acme')
      .executeTakeFirstOrThrow();
    await createExampleTypes(trx, client.id);
  });
}
