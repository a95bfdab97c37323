import { describe, expect, it } from 'vitest';
import { missingCapabilities, missingNetworkPrivilege } from './capabilities.ts';
import { Netns } from './netns.ts';
import { openTap } from './tap.ts';

describe('missingCapabilities', () => {
  it('reads CapEff', () => {
    expect(missingCapabilities('Name:\tnode\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n')).toEqual([]);
    expect(missingCapabilities('CapEff:\t0000000000203000\n')).toEqual([]);
    // What Docker gives a container: CAP_NET_RAW, but neither CAP_NET_ADMIN nor CAP_SYS_ADMIN.
    expect(missingCapabilities('CapEff:\t00000000a80425fb\n')).toEqual(['CAP_NET_ADMIN', 'CAP_SYS_ADMIN']);
    expect(missingCapabilities('CapEff:\t0000000000000000\n')).toHaveLength(3);
    expect(missingCapabilities('')).toHaveLength(3);
  });
});

it('missingNetworkPrivilege is right, and one sentence', () => {
  const missing = missingNetworkPrivilege();
  const attempt = () => {
    using netns = Netns.create();
    netns.run(() => openTap('t0').close());
  };
  if (missing === null) return attempt();
  expect(missing).toMatch(/^[^\n]+\.$/);
  expect(attempt).toThrow();
});
