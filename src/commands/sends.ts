// Commands on one send: watch, pause, resume, cancel, retry-failed.
import type { Command } from 'commander';
import type { Database } from '../database/connect.ts';
import type { SendRef } from '../queue.ts';
import { cancelSend, pauseSend, resumeSend, retryFailed } from '../sends/control.ts';
import { findSendById, getSend } from '../sends/sends.ts';
import { countsLine, watchSend } from './progress.ts';
import { print, withDatabase } from './with-database.ts';

export function addSendCommands(program: Command): void {
  const send = program.command('send').description('sends');
  send
    .command('watch <id>')
    .description('live progress of a send')
    .action((id: string) =>
      withDatabase(async ({ db }) => {
        const { client_id, send_id } = await findSendById(db, id);
        const done = await watchSend(() => getSend(db, client_id, send_id));
        print(`${done.state}: ${countsLine(done.counts)}`);
      }),
    );
  for (const [action, description, control] of [
    ['pause', 'holds a send; what is in hand is finished', pauseSend],
    ['resume', 'lets a paused send go on', resumeSend],
    ['cancel', 'skips what has not been sent', cancelSend],
  ] as const) {
    send
      .command(`${action} <id>`)
      .description(description)
      .action((id: string) =>
        withDatabase(async ({ db }) => {
          const ref = await findSendById(db, id);
          await db.transaction().execute((trx) => control(trx, ref));
          await printSend(db, ref);
        }),
      );
  }
  send
    .command('retry-failed <id>')
    .description('queues again what failed, but for addresses that do not exist')
    .action((id: string) =>
      withDatabase(async ({ db }) => {
        const ref = await findSendById(db, id);
        const retried = await retryFailed(db, ref);
        print(`Queued again: ${retried}.`);
        await printSend(db, ref);
      }),
    );
}

async function printSend(db: Database, { client_id, send_id }: SendRef): Promise<void> {
  const { state, counts } = await getSend(db, client_id, send_id);
  print(`${state}: ${countsLine(counts)}`);
}
