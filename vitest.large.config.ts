import { defineConfig } from 'vitest/config';

/** Full-size runs: one at a time, with time. */
export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', development: false } },
  test: {
    include: ['test/large/**/*.test.ts'],
    // React's development build renders three times slower, and is not what runs in production.
    env: { NODE_ENV: 'production' },
    globalSetup: ['test/support/global-setup.ts'],
    maxWorkers: 1,
    fileParallelism: false,
    testTimeout: 3_600_000,
    hookTimeout: 300_000,
  },
});
