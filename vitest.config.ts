import { defineConfig } from 'vitest/config';

// The packages' own tests run side by side. The tests in test/ start processes, namespaces and interfaces and have the
// machine to themselves, one file at a time; so do those in test/vm/, which start virtual machines,
// and those in test/systemd/, which boot systemd.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'packages',
          include: ['packages/*/src/**/*.test.ts'],
          pool: 'forks',
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'system',
          include: ['test/**/*.test.ts'],
          exclude: ['test/vm/**', 'test/systemd/**'],
          pool: 'forks',
          fileParallelism: false,
          testTimeout: 240_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'systemd',
          include: ['test/systemd/*.test.ts'],
          pool: 'forks',
          globalSetup: ['test/systemd/setup.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 3 },
        },
      },
      {
        test: {
          name: 'vm',
          include: ['test/vm/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          globalSetup: ['test/vm/setup.ts'],
          // Emulated guests, several at once, on what a busy machine has left.
          testTimeout: 300_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
