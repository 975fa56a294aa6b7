// Reference: nodemailer's bare SMTPConnection, 20 of them, one ready-made message again and again.
import SMTPConnection from 'nodemailer/lib/smtp-connection';
import { addressOf, readReadyMade, SENDER } from '../mailing.ts';
import { inLanes, serveReference, sinkOptions } from './serve.ts';

const CONNECTIONS = 20;

const raw = await readReadyMade();
const connections = await Promise.all(Array.from({ length: CONNECTIONS }, open));

serveReference({
  send: (count, sent) =>
    inLanes(count, CONNECTIONS, async (n, lane) => {
      await sendOver(connections[lane]!, addressOf(n));
      sent();
    }),
});

function open(): Promise<SMTPConnection> {
  return new Promise((resolve, reject) => {
    const connection = new SMTPConnection(sinkOptions());
    connection.once('error', reject);
    connection.connect(() => resolve(connection));
  });
}

function sendOver(connection: SMTPConnection, to: string): Promise<void> {
  return new Promise((resolve, reject) => {
    connection.send({ from: SENDER, to: [to] }, raw, (error) =>
      error ? reject(error) : resolve(),
    );
  });
}
