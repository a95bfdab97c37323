import { mainPoller } from '@ivshmem/linux/wait';
import { expect, it } from 'vitest';
import { openPciPort } from './pci-port.ts';

it.each(['poll', 'vfio'] as const)('names a PCI device that does not exist: %s', (interrupts) => {
  expect(() => openPciPort({ device: 'ff:1f.7', interrupts }, mainPoller)).toThrow(
    /^0000:ff:1f\.7: no such PCI device: see lspci$/,
  );
});
