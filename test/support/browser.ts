// A real browser for tests: Debian's chromium, or the one of CHROMIUM_PATH. Where there is none a test
// skips, and says so.
import { existsSync } from 'node:fs';
import { chromium, type Browser } from 'playwright-core';

const EXECUTABLE = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium';
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** For `it.skipIf`. */
export function hasNoBrowser(): boolean {
  if (existsSync(EXECUTABLE)) return false;
  // oxlint-disable-next-line no-console -- a skip that nobody sees is a test that nobody has
  console.warn(`SKIPPED: no browser at ${EXECUTABLE}; install chromium, or set CHROMIUM_PATH`);
  return true;
}

/** With a new, empty profile of its own; to be closed. */
export function startBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: EXECUTABLE, headless: true, args: FLAGS });
}
