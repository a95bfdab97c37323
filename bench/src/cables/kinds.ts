import { missingCompiler } from '../c-reference.ts';
import type { CableKind } from '../cable.ts';
import { cLinkCable } from './c-link.ts';
import { type IvshmemSettings, ivshmemCable } from './ivshmem.ts';
import { missingSocat, socatCable } from './socat.ts';
import { missingVde, vdeCable } from './vde.ts';
import { vethCable } from './veth.ts';

// The cables that parts of the benchmarks choose from.

export const ours = (name = 'ivshmem', settings: IvshmemSettings = {}): CableKind => ({
  name,
  missing: () => null,
  open: () => ivshmemCable(name, settings),
});

/** The C reference. */
export const inC = (name = 'C', settings: IvshmemSettings = {}): CableKind => ({
  name,
  missing: missingCompiler,
  open: () => cLinkCable(name, settings),
});

export const veth: CableKind = { name: 'veth', missing: () => null, open: vethCable };
export const vde: CableKind = { name: 'VDE', missing: missingVde, open: vdeCable };
export const socat: CableKind = { name: 'socat', missing: missingSocat, open: socatCable };
