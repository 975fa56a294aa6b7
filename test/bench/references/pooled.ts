// Reference: nodemailer's pooled transport, 20 connections, one ready-made message again and again.
import { createTransport } from 'nodemailer';
import { addressOf, readReadyMade, SENDER } from '../mailing.ts';
import { inLanes, serveReference, sinkOptions } from './serve.ts';

const CONNECTIONS = 20;

const raw = await readReadyMade();
const transport = createTransport({
  ...sinkOptions(),
  pool: true,
  maxConnections: CONNECTIONS,
  maxMessages: Infinity, // by default a connection ends after 100
});

serveReference({
  // Twice as many as connections, so that none of them waits for the next one.
  send: (count, sent) =>
    inLanes(count, 2 * CONNECTIONS, async (n) => {
      await transport.sendMail({ envelope: { from: SENDER, to: addressOf(n) }, raw });
      sent();
    }),
});
