// Times the trigger against the bare INSERT … SELECT of the same snapshot into the same table, side by
// side in one run, in alternation, so that a noisy machine is noisy for both.
import type pg from 'pg';
import { scoreSend, type Api } from './harness.ts';

export interface TriggerCost {
  /** Medians, in milliseconds. */
  trigger: number;
  bare: number;
  /** Of each round. */
  runs: { trigger: number[]; bare: number[] };
}

/** `list` must have its members; no worker may run. Leaves sends of this name behind. */
export async function measureTrigger(
  { api, database }: { api: Api; database: { pool: pg.Pool } },
  list: string,
  rounds: number,
  name = 'cost',
): Promise<TriggerCost> {
  const trigger: number[] = [];
  const bare: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const request = scoreSend({ send_key: `${name}:${list}:${round}` });
    trigger.push(await timed(() => api('POST', `/api/recipient-lists/${list}/send`, request)));
    bare.push(await bareSnapshot(database.pool, list, round));
  }
  return { trigger: median(trigger), bare: median(bare), runs: { trigger, bare } };
}

async function bareSnapshot(pool: pg.Pool, list: string, round: number): Promise<number> {
  const { rows } = await pool.query(
    `insert into sends (client_id, send_key, list_id, list_key, request_digest, template_key, template_version,
       requires_consent, on_unknown, sender_id, sender_email)
     select client_id, 'bare:' || $1 || ':' || $2, id, key, '{}', 'none', 'none', false, 'hold', 'none', 'none'
     from recipient_lists where key = $1 returning client_id, id, list_id`,
    [list, round],
  );
  const { client_id, id, list_id } = rows[0];
  const took = await timed(() =>
    pool.query(
      `insert into send_recipients (client_id, send_id, position, contact_id, source_object_key, name)
       select client_id, $2, row_number() over (), contact_id, source_object_key, name
       from list_members where client_id = $1 and list_id = $3 and removed_at is null`,
      [client_id, id, list_id],
    ),
  );
  await pool.query('delete from send_recipients where client_id = $1 and send_id = $2', [
    client_id,
    id,
  ]);
  await pool.query('delete from sends where client_id = $1 and id = $2', [client_id, id]);
  return took;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

export function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
