// Connections to the mail server that end at bad moments.
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { parseSmtpUrl, SmtpPool } from '../../src/smtp/transport.ts';
import { until } from '../support/until.ts';

const ENVELOPE = { from: 'courses@school.example', to: ['ada@list.example'] };
const RAW = Buffer.from('Subject: Hello\r\n\r\nHello\r\n');

/** What the server says to a command; undefined leaves the client without an answer. */
let answers: (command: string, socket: Socket) => string | undefined;
let pool: SmtpPool;
const heard: string[] = [];
const sockets = new Set<Socket>();

const server = createServer((socket) => {
  sockets.add(socket);
  socket.on('error', () => undefined);
  socket.write('220 mail.example\r\n');
  let inBody = false;
  createInterface(socket).on('line', (line) => {
    if (inBody && line !== '.') return;
    const command = inBody ? '.' : line.split(/[ :]/u)[0]!;
    inBody = command === 'DATA';
    heard.push(command);
    const answer = answers(command, socket);
    if (answer !== undefined) socket.write(`${answer}\r\n`);
  });
});

beforeEach(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  pool = new SmtpPool(parseSmtpUrl(`smtp://127.0.0.1:${port}`), 2, createLogger('silent'), 20);
  heard.length = 0;
  answers = (command) => (command === 'DATA' ? '354 go on' : '250 ok');
});

afterEach(async () => {
  pool.close();
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});

const countOf = (command: string) => heard.filter((one) => one === command).length;

it('no message is given to a connection that is being closed', async () => {
  const usual = answers;
  answers = (command, socket) => (command === 'QUIT' ? undefined : usual(command, socket));
  expect(await pool.send(ENVELOPE, RAW)).toMatchObject({ kind: 'accepted' });
  await until('the idle connection to be closed', () => countOf('QUIT') === 1);
  expect(await pool.send(ENVELOPE, RAW)).toMatchObject({ kind: 'accepted' });
  expect(countOf('EHLO')).toBe(2);
});

it.each(['MAIL', 'RCPT', 'DATA'])('lost after %s: nothing was handed over', async (at) => {
  const usual = answers;
  answers = (command, socket) => {
    if (command !== at) return usual(command, socket);
    socket.end();
    return undefined;
  };
  expect(await pool.send(ENVELOPE, RAW)).toMatchObject({ kind: 'lost', handedOver: false });
});

it('lost after the final dot: handed over, and nobody knows', async () => {
  const usual = answers;
  answers = (command, socket) => {
    if (command !== '.') return usual(command, socket);
    socket.end();
    return undefined;
  };
  expect(await pool.send(ENVELOPE, RAW)).toMatchObject({ kind: 'lost', handedOver: true });
});

it('a reply with anything in it can be stored', async () => {
  const usual = answers;
  for (const text of ['no \0 such user', `${'a'.repeat(489)}😀 and more`]) {
    answers = (command, socket) =>
      command === 'RCPT' ? `550 5.1.1 ${text}` : usual(command, socket);
    const signal = await pool.send(ENVELOPE, RAW);
    const reply = (signal as { reply: { text: string } }).reply.text;
    expect(reply).toMatch(/^550 5\.1\.1 /u);
    expect(reply).not.toMatch(/\0/u);
    expect(reply.isWellFormed()).toBe(true);
    expect(reply.length).toBeLessThanOrEqual(500);
  }
});
