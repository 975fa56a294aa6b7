// Run as a process by the tests of the embedded PostgreSQL: starts it in the folder given, prints its
// URL, and holds it until standard input ends.
import { startEmbedded } from '../../src/database/embedded.ts';

const embedded = await startEmbedded({ folder: process.argv[2]! });
process.stdout.write(`${embedded.url}\n`);
process.stdin.resume();
process.stdin.once('end', () => void embedded.stop().then(() => process.exit(0)));
