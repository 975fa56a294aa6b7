// A mail server in a process of its own, started by sink.ts: keeps nothing, and tells its parent when
// each mail arrived, where that is wanted.
import { SmtpSink } from '../support/smtp-sink.ts';

const sink = await new SmtpSink().start();
sink.keepsBodies = false;
const tells = process.env.BENCH_ARRIVALS === 'tell';
sink.onBody = ({ to }) => {
  sink.accepted.length = 0;
  if (tells) process.send!({ to: to[0], at: Number(process.hrtime.bigint()) / 1e6 });
  return undefined;
};
process.once('disconnect', () => process.exit(0));
process.send!({ url: sink.url });
