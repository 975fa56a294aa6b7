// What every command on the database needs: a small pool that is closed at the end, and a line of output.
import { readConfig, requireDatabaseUrl } from '../config.ts';
import { connect, type Connection } from '../database/connect.ts';
import { createLogger } from '../log.ts';

export async function withDatabase(
  action: (connection: Connection) => Promise<void>,
): Promise<void> {
  const config = readConfig();
  const log = createLogger(config.logLevel);
  const connection = connect({
    url: requireDatabaseUrl(config),
    log,
    max: 3,
    applicationName: 'rosterpost cli',
    queryTimeoutMs: 3_600_000, // migrations may take their time
  });
  try {
    await action(connection);
  } finally {
    await connection.close();
  }
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
