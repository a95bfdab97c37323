import { describe, expect, it } from 'vitest';
import { runChecks } from '../index.ts';
import { runOne, runSeed, shortPace, verdict } from '../mutant.test-support.ts';
import { serverChecks } from './checks.ts';
import { serverMutants } from './mutants.test-support.ts';
import { ownServer, proxiedServer } from './proxy.test-support.ts';
import { ServerSubject } from './subject.ts';

const seed = runSeed();

describe('checks of a host server', () => {
  it.each([
    ['ours', ownServer, serverChecks],
    // A proxy for 1024 clients would need a million descriptors.
    [
      'ours behind a proxy that adds no fault',
      proxiedServer({}),
      serverChecks.filter(({ id }) => !id.includes('1024')),
    ],
  ])(
    'are passed by %s',
    async (_name, server, checks) => {
      await using subject = new ServerSubject({ server });
      const results = await runChecks(subject, checks, { seed, report: () => {} });
      expect(results.filter(({ outcome }) => outcome !== 'passed').map(verdict)).toEqual([]);
    },
    120_000,
  );

  it.concurrent.each(serverMutants)('$check notices: $fault', async (mutant) => {
    await using subject = new ServerSubject({ server: proxiedServer(mutant), pace: shortPace() });
    expect(verdict(await runOne(subject, serverChecks, mutant.check, seed))).toMatch(' failed: ');
  });

  it('can each fail: a mutant is noticed by it', () => {
    const noticed = new Set(serverMutants.map(({ check }) => check));
    expect(serverChecks.map(({ id }) => id).filter((id) => !noticed.has(id))).toEqual([]);
  });
});
