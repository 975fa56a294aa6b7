// A PostgreSQL of our own that can be killed and started again, with default durability but for the
// power cut. Its port changes with every start: what lives longer connects through a proxy.
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect } from '../../src/database/connect.ts';
import { startEmbedded, type EmbeddedPostgres } from '../../src/database/embedded.ts';
import { migrate } from '../../src/database/migrate.ts';
import { createLogger } from '../../src/log.ts';
import { TcpProxy } from './tcp-proxy.ts';

export class RestartablePostgres {
  /** Through the proxy: the same before and after a restart. */
  url = '';
  readonly proxy = new TcpProxy(0);
  readonly #settings: Record<string, string>;
  #folder = '';
  #server: EmbeddedPostgres | undefined;

  /** A process that is killed leaves the operating system's cache: nothing needs to be synced. */
  constructor(settings: Record<string, string> = {}) {
    this.#settings = { fsync: 'off', ...settings };
  }

  /** Initialises and migrates. */
  async open(): Promise<this> {
    this.#folder = await mkdtemp(path.join(tmpdir(), 'rosterpost-faults-'));
    await chmod(this.#folder, 0o755); // the server may run as another account
    await this.start();
    await this.proxy.start();
    const url = new URL(this.#server!.url);
    url.port = String(this.proxy.port);
    this.url = url.href;
    const connection = connect({ url: this.url, log: createLogger('silent') });
    await migrate(connection);
    await connection.close();
    return this;
  }

  async start(): Promise<void> {
    this.#server = await startEmbedded({ folder: this.#folder, settings: this.#settings });
    this.proxy.targetPort = Number(new URL(this.#server.url).port);
  }

  /** Immediate shutdown: nothing is written any more, the next start recovers from the log. */
  async stopNow(): Promise<void> {
    const file = await readFile(path.join(this.#folder, 'postgres/postmaster.pid'), 'utf8');
    process.kill(Number(file.split('\n')[0]), 'SIGQUIT');
    await this.#server!.stop(); // has ended; also stops its watchdog
    this.#server = undefined;
  }

  async close(): Promise<void> {
    await this.proxy.stop();
    await this.#server?.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
