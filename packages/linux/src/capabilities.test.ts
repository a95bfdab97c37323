import { describe, expect, it } from 'vitest';
import { missingCapabilities, missingNetworkPrivilege } from './capabilities.ts';

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

it('missingNetworkPrivilege answers with null or one sentence', () => {
  const missing = missingNetworkPrivilege();
  if (missing !== null) expect(missing).toMatch(/^[^\n]+\.$/);
  else expect(process.getuid?.()).toBe(0);
});
