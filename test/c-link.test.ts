import { existsSync } from 'node:fs';
import { missingNetworkPrivilege, TAP_MAX_MTU } from '@ivshmem/linux/network';
import { ping, tcpTransfer } from '@ivshmem/traffic';
import { expect, it } from 'vitest';
import { missingCompiler } from '../bench/src/c-reference.ts';
import { type Cable, untilPassing } from '../bench/src/cable.ts';
import { cLinkCable } from '../bench/src/cables/c-link.ts';
import { isNamespaceAlive } from './support/processes.ts';
import { describeWhere } from './support/requirements.ts';

/** Many times what the data area of a section holds, so that rings and data area wrap. */
const BYTES = 64 * 2 ** 20;

async function expectTraffic({ from, to, address }: Cable): Promise<void> {
  await untilPassing(from, address);
  expect(await ping({ netns: from.path, to: address, count: 100 })).toMatchObject({ received: 100 });
  const transfer = { from: from.path, to: to.path, address, bytes: BYTES, verify: true };
  expect(await tcpTransfer(transfer)).toMatchObject({ bytes: BYTES, checksumOk: true });
}

describeWhere(missingCompiler() ?? missingNetworkPrivilege(), 'the link in C', () => {
  it.each([
    ['with offloads, busy polling', { offload: true, busyPoll: 50 }],
    ['without offloads, sleeping', { offload: false, busyPoll: 0 }],
  ])('passes what it is given, at any MTU: %s', async (_name, settings) => {
    const cable = await cLinkCable('C', settings);
    try {
      await expectTraffic(cable);
      await cable.setMtu(TAP_MAX_MTU);
      await expectTraffic(cable);
    } finally {
      await cable.close();
    }
  });

  it('rejects an MTU that no TAP has, and continues', async () => {
    const cable = await cLinkCable();
    try {
      await expect(cable.setMtu(TAP_MAX_MTU + 1)).rejects.toThrow(RangeError);
      await untilPassing(cable.from, cable.address);
    } finally {
      await cable.close();
    }
  });

  it('leaves no process and no namespace behind', async () => {
    const cable = await cLinkCable();
    const { pids } = cable;
    const namespaces = [cable.from.id, cable.to.id];
    expect(pids.map((pid) => existsSync(`/proc/${pid}`))).toEqual([true, true]);
    expect(namespaces.map(isNamespaceAlive)).toEqual([true, true]);
    await cable.close();
    expect(pids.map((pid) => existsSync(`/proc/${pid}`))).toEqual([false, false]);
    expect(namespaces.map(isNamespaceAlive)).toEqual([false, false]);
  });
});
