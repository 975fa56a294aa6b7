// The mail server that everything in a run is sent to, in a process of its own: Debian's smtp-sink where
// it is installed (package postfix), because it costs least, else our own.
import { access } from 'node:fs/promises';
import { once } from 'node:events';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { freePort } from '../../src/database/embedded.ts';
import { startProgram, startScript, type Process } from '../support/processes.ts';
import { until } from '../support/until.ts';

const SMTP_SINK = '/usr/sbin/smtp-sink';
/** More than all connections of any run, and the longest queue of new ones. */
const CONNECTIONS = '1000';

export interface Sink {
  what: string;
  url: string;
  process: Process;
}

export async function startSink(): Promise<Sink> {
  const isInstalled = await access(SMTP_SINK).then(
    () => true,
    () => false,
  );
  if (!isInstalled) {
    return { what: "the project's own (smtp-sink is not installed)", ...(await startOwnSink()) };
  }
  const port = await freePort();
  const account = userInfo().uid === 0 ? ['-u', 'nobody'] : [];
  const process = startProgram(
    SMTP_SINK,
    [...account, '-m', CONNECTIONS, `127.0.0.1:${port}`, CONNECTIONS],
    {},
    ['ignore', 'inherit', 'inherit'],
  );
  await until('smtp-sink to listen', () => isListening(port), 10_000);
  return { what: 'smtp-sink (Postfix)', url: `smtp://127.0.0.1:${port}`, process };
}

/** When a mail to an address was accepted, on the clock of process.hrtime, in milliseconds. */
export type Arrivals = Map<string, number>;

/** Tells of each mail; use it for few. */
export async function startOwnSink(
  arrivals?: Arrivals,
): Promise<{ url: string; process: Process }> {
  const sink = startScript(
    'test/bench/own-sink.ts',
    [],
    { BENCH_ARRIVALS: arrivals ? 'tell' : '' },
    ['ignore', 'inherit', 'inherit', 'ipc'],
  );
  const [{ url }] = (await once(sink.child, 'message')) as [{ url: string }];
  sink.child.on('message', ({ to, at }: { to: string; at: number }) => arrivals?.set(to, at));
  return { url, process: sink };
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
