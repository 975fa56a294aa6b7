import { defineConfig } from 'vitest/config';

export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', development: false } },
  test: {
    include: ['test/**/*.test.ts', 'test/**/*.test.tsx'],
    exclude: ['test/large/**', 'node_modules/**'],
    // React's development build renders three times slower, and is not what runs in production.
    env: { NODE_ENV: 'production' },
    globalSetup: ['test/support/global-setup.ts'],
    // Each file has a database of its own; two at once keep a small machine's answers steady.
    maxWorkers: 2,
    testTimeout: 300_000,
    hookTimeout: 120_000,
  },
});
