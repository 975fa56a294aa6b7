// Email types: the registered kinds of single emails, each with default recipients. A request may
// override To, Cc and Bcc, each by itself.
import { sql } from 'kysely';
import * as v from 'valibot';
import type { Database, Trx } from '../database/connect.ts';
import { violates } from '../database/failures.ts';
import { DomainError, notFound } from '../errors.ts';
import { address, key, line } from '../fields.ts';
import { page, type Page, type PageRequest } from '../paging.ts';
import { parseAddress, type Address } from '../address.ts';

/** Of one email, To, Cc and Bcc together. */
export const MOST_RECIPIENTS = 1000;

const addresses = () =>
  v.pipe(
    v.array(address()),
    v.maxLength(MOST_RECIPIENTS, `must have at most ${MOST_RECIPIENTS} addresses`),
  );

export const EmailTypeInput = v.strictObject({
  description: v.optional(v.nullable(line(1000))),
  to_addresses: v.optional(addresses()),
  cc_addresses: v.optional(addresses()),
  bcc_addresses: v.optional(addresses()),
  from_email: v.optional(v.nullable(key())),
  is_active: v.optional(v.boolean()),
});
export type EmailTypeInput = v.InferOutput<typeof EmailTypeInput>;

export interface EmailType {
  email_type: string;
  description: string | null;
  to_addresses: string[];
  cc_addresses: string[];
  bcc_addresses: string[];
  from_email: string | null;
  is_active: boolean;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = [
  'email_type',
  'description',
  'to_addresses',
  'cc_addresses',
  'bcc_addresses',
  'from_email',
  'is_active',
  'created_at',
  'updated_at',
] as const;

/** Registers the type or changes the fields that are given. @throws sender_not_found */
export async function putEmailType(
  trx: Trx,
  clientId: number,
  emailType: string,
  input: EmailTypeInput,
): Promise<{ emailType: EmailType; created: boolean }> {
  const given = (list: Address[] | undefined) => list?.map((one) => one.given);
  const changes = withoutUndefined({
    description: input.description,
    to_addresses: given(input.to_addresses),
    cc_addresses: given(input.cc_addresses),
    bcc_addresses: given(input.bcc_addresses),
    from_email: input.from_email,
    is_active: input.is_active,
  });
  const { created, ...row } = await trx
    .insertInto('email_types')
    .values({ client_id: clientId, email_type: emailType, ...changes })
    .onConflict((conflict) =>
      conflict
        .columns(['client_id', 'email_type'])
        .doUpdateSet({ ...changes, updated_at: sql`now()` }),
    )
    .returning([...COLUMNS, sql<boolean>`xmax = 0`.as('created')])
    .executeTakeFirstOrThrow()
    .catch((error: unknown) => {
      throw violates(error, 'email_type_sender_exists')
        ? new DomainError('sender_not_found', `The sender "${input.from_email}" does not exist.`)
        : error;
    });
  return { emailType: row, created };
}

function withoutUndefined<Fields extends object>(
  fields: Fields,
): { [Name in keyof Fields]?: Exclude<Fields[Name], undefined> } {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  ) as never;
}

/** @throws not_found */
export async function getEmailType(
  db: Database,
  clientId: number,
  emailType: string,
): Promise<EmailType> {
  const found = await findEmailType(db, clientId, emailType);
  if (!found) throw notFound(`The email type "${emailType}"`);
  return found;
}

export function findEmailType(
  db: Database,
  clientId: number,
  emailType: string,
): Promise<EmailType | undefined> {
  return db
    .selectFrom('email_types')
    .select(COLUMNS)
    .where('client_id', '=', clientId)
    .where('email_type', '=', emailType)
    .executeTakeFirst();
}

export function listEmailTypes(
  db: Database,
  clientId: number,
  request: PageRequest,
): Promise<Page<EmailType>> {
  const query = db.selectFrom('email_types').select(COLUMNS).where('client_id', '=', clientId);
  return page(
    request,
    [v.string()],
    (one: EmailType) => [one.email_type],
    (after, limit) =>
      query
        .$if(after !== undefined, (narrowed) => narrowed.where('email_type', '>', after![0]))
        .orderBy('email_type')
        .limit(limit)
        .execute(),
  );
}

/** Emails that were queued as this type stay. @throws not_found */
export async function deleteEmailType(
  trx: Trx,
  clientId: number,
  emailType: string,
): Promise<void> {
  const deleted = await trx
    .deleteFrom('email_types')
    .where('client_id', '=', clientId)
    .where('email_type', '=', emailType)
    .returning('email_type')
    .executeTakeFirst();
  if (!deleted) throw notFound(`The email type "${emailType}"`);
}

/** The types of the documentation's examples, to begin with. Repeatable. */
export async function createExampleTypes(trx: Trx, clientId: number): Promise<void> {
  const examples = {
    welcome: {
      description: 'Example: sent to a new user',
      to: ['user1@example.com', 'user2@example.com'],
    },
    notification: { description: 'Example: something happened', to: ['user1@example.com'] },
    report: { description: 'Example: a report with files', to: ['executive1@example.com'] },
  };
  await trx
    .insertInto('email_types')
    .values(
      Object.entries(examples).map(([email_type, { description, to }]) => ({
        client_id: clientId,
        email_type,
        description,
        to_addresses: to,
        cc_addresses: ['cc@example.com'],
        bcc_addresses: ['bcc@example.com'],
      })),
    )
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}

/** The address is nobody's default any more. @returns whether it was */
export async function removeFromTypes(trx: Trx, clientId: number, email: string): Promise<boolean> {
  const types = await trx
    .selectFrom('email_types')
    .select(['email_type', 'to_addresses', 'cc_addresses', 'bcc_addresses'])
    .where('client_id', '=', clientId)
    .orderBy('email_type')
    .forUpdate()
    .execute();
  const isOther = (given: string) => {
    const parsed = parseAddress(given);
    return typeof parsed === 'string' || parsed.email !== email;
  };
  const fields = ['to_addresses', 'cc_addresses', 'bcc_addresses'] as const;
  const named = types.filter((type) => !fields.every((field) => type[field].every(isOther)));
  for (const type of named) {
    await trx
      .updateTable('email_types')
      .set({
        to_addresses: type.to_addresses.filter(isOther),
        cc_addresses: type.cc_addresses.filter(isOther),
        bcc_addresses: type.bcc_addresses.filter(isOther),
        updated_at: sql`now()`,
      })
      .where('client_id', '=', clientId)
      .where('email_type', '=', type.email_type)
      .execute();
  }
  return named.length > 0;
}
