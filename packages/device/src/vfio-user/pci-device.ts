/** A part of a BAR that a VMM may map, in bytes; multiples of the host's page size. */
export interface MappedArea {
  readonly offset: number;
  readonly size: number;
}

/** One Base Address Register's memory. */
export interface Bar {
  /** In bytes, a power of two. */
  readonly size: number;
  /**
   * What the VMM maps instead of sending a request for each access: parts of a file whose byte n is byte n of the BAR. The
   * descriptor stays the device's, and must be open until the session has ended.
   */
  readonly mapped?: { readonly fd: number; readonly areas: readonly MappedArea[] };
}

/**
 * A PCI device that a VMM can use by vfio-user: see `session.ts`. It interrupts by MSI-X, through the session's
 * InterruptVectors, and does no DMA. Accesses arrive one at a time and never reach beyond `configurationSize` or a BAR's
 * size (0 if there is no such BAR). A SystemCallError that one of them throws is returned to the VMM as EIO.
 */
export interface PciDevice {
  /** Size of the configuration space in bytes: 256, or 4096 for PCI Express. */
  readonly configurationSize: number;
  /** By number, 0 to 5; undefined if the device does not have it, as for the upper half of one that is 64 bits wide. */
  readonly bars: readonly (Bar | undefined)[];
  /** Copies bytes of the configuration space. */
  readConfiguration(offset: number, into: Uint8Array): void;
  writeConfiguration(offset: number, bytes: Uint8Array): void;
  /** Copies bytes of a BAR into `into`, which is zero. */
  readBar(bar: number, offset: number, into: Uint8Array): void;
  writeBar(bar: number, offset: number, bytes: Uint8Array): void;
  /** Device reset. The eventfds of the VMM stay bound. */
  reset(): void;
  /** The session has ended. */
  close(): void;
}
