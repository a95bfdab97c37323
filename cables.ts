import { DEFAULT_BUSY_POLL } from '@ivshmem/net';
import type { CableKind } from './cable.ts';
import { ivshmemCable } from './cables/ivshmem.ts';
import { memifCable, missingMemif } from './cables/memif.ts';
import { missingSocat, socatCable } from './cables/socat.ts';
import { missingVde, vdeCable } from './cables/vde.ts';
import { vethCable } from './cables/veth.ts';

const nothing = () => null;

// Ours, as it is unless told otherwise.

export const ivshmem: CableKind = {
  name: 'ivshmem',
  missing: nothing,
  open: () => ivshmemCable('ivshmem', { busyPoll: DEFAULT_BUSY_POLL }),
};
export const ivshmemSleeping: CableKind = {
  name: 'ivshmem, no busy polling',
  missing: nothing,
  open: () => ivshmemCable('ivshmem, no busy polling', { busyPoll: 0 }),
};
export const veth: CableKind = { name: 'veth', missing: nothing, open: vethCable };
export const memif: CableKind = { name: 'DPDK memif', missing: missingMemif, open: memifCable };
export const vde: CableKind = { name: 'VDE', missing: missingVde, open: vdeCable };
export const socat: CableKind = { name: 'socat', missing: missingSocat, open: socatCable };
