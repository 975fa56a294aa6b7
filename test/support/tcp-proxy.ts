// A TCP proxy on a port of its own, with the faults of a network: latency, narrow bandwidth, cut,
// reset, swallowed bytes, refused connections. The target's port may change, as that of a database
// that was started anew does.
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

export interface ProxiedConnection {
  /** The first bytes the client sent: PostgreSQL's hold its user, database and application name. */
  opening: string;
  client: Socket;
  server: Socket;
  silent: boolean;
}

type Which = (connection: ProxiedConnection) => boolean;
const ALL: Which = () => true;

export class TcpProxy {
  /** Added to each direction. */
  latencyMs = 0;
  bytesPerSecond = Infinity;
  port = 0;
  targetPort: number;
  /** Bytes that were swallowed, and connections that were tried while all was silent. */
  swallowed = 0;
  readonly connections = new Set<ProxiedConnection>();
  #silent = false;
  #forbidden: Which | undefined;
  #server: Server;

  constructor(targetPort: number) {
    this.targetPort = targetPort;
    this.#server = this.#createServer();
  }

  async start(): Promise<this> {
    await this.accept();
    return this;
  }

  async stop(): Promise<void> {
    await this.refuse();
  }

  /** Closes the connections, as a balancer that is restarted does. Returns how many. */
  cut(which: Which = ALL): number {
    return this.#each(which, ({ client, server }) => {
      client.destroy();
      server.destroy();
    });
  }

  /** Cuts the connections like this, and those to come until it is called without. */
  forbid(which?: Which): void {
    this.#forbidden = which;
    if (which) this.cut(which);
  }

  /** Resets the connections (RST) to both sides. */
  reset(which: Which = ALL): number {
    return this.#each(which, ({ client, server }) => {
      client.resetAndDestroy();
      server.resetAndDestroy();
    });
  }

  /** Half-open: the connections stay, but nothing gets through. */
  silence(which: Which = ALL): number {
    return this.#each(which, (connection) => {
      connection.silent = true;
    });
  }

  /** As `silence`, for the connections to come too. */
  silenceAll(): void {
    this.#silent = true;
    this.silence();
  }

  /** New connections get through; those that lost bytes are reset, for they can never be in order. */
  heal(): void {
    this.#silent = false;
    this.latencyMs = 0;
    this.bytesPerSecond = Infinity;
    this.reset((connection) => connection.silent);
  }

  /** Closes all connections and the port. */
  async refuse(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cut();
    await closed;
  }

  /** Opens the port again. */
  async accept(): Promise<void> {
    if (this.#server.listening) return;
    this.#server = this.#createServer();
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.port, '127.0.0.1', resolve);
    });
    this.port = (this.#server.address() as AddressInfo).port;
  }

  #each(which: Which, act: (connection: ProxiedConnection) => void): number {
    const chosen = [...this.connections].filter(which);
    for (const connection of chosen) act(connection);
    return chosen.length;
  }

  #createServer(): Server {
    return createServer({ noDelay: true }, (client) => this.#join(client));
  }

  #join(client: Socket): void {
    const server = connect({ host: '127.0.0.1', port: this.targetPort, noDelay: true });
    const connection: ProxiedConnection = { opening: '', client, server, silent: this.#silent };
    this.connections.add(connection);
    client.on('data', (part) => {
      if (connection.opening.length > 1000) return;
      connection.opening += part.toString('latin1');
      if (this.#forbidden?.(connection)) this.cut((one) => one === connection);
    });
    this.#carry(connection, client, server);
    this.#carry(connection, server, client);
  }

  /** Bytes leave in order, each part when its time has come; the end comes after them. */
  #carry(connection: ProxiedConnection, from: Socket, to: Socket): void {
    let due = 0;
    const inFlight: Buffer[] = []; // timers of different lengths may fire out of order
    let end: (() => void) | undefined;
    const deliver = (part: Buffer) => {
      if (connection.silent) this.swallowed += part.length;
      else if (to.writable) to.write(part);
    };
    const endWith = (how: () => void) => {
      end = how;
      if (inFlight.length === 0) how();
    };
    from.on('data', (part) => {
      const now = performance.now();
      due = Math.max(now + this.latencyMs, due) + (part.length / this.bytesPerSecond) * 1000;
      if (inFlight.length === 0 && due - now < 1) return deliver(part);
      inFlight.push(part);
      setTimeout(() => {
        deliver(inFlight.shift()!);
        if (inFlight.length === 0) end?.();
      }, due - now);
    });
    from.on('error', () => undefined);
    // Who is at the end of a silent connection does not hear that the other side has gone, either.
    from.on('end', () => endWith(() => connection.silent || to.end()));
    from.on('close', () => {
      endWith(() => connection.silent || to.destroy());
      if (connection.client.destroyed && connection.server.destroyed)
        this.connections.delete(connection);
    });
  }
}
