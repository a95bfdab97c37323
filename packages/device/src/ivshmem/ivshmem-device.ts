import type { HostPort } from '@ivshmem/transport';
import { pci } from '@ivshmem/transport/protocol';
import { Counter } from '../counters.ts';
import { CONFIGURATION_SIZE, memoryRegionSize, msixRegionSize } from './configuration-space.ts';
import { type DeviceAction, DeviceModel, type RegistersInUse } from './device-model.ts';
import { type MappedArea, MemoryBar, mappedAreas } from './memory-bar.ts';

interface Bar {
  readonly size: number;
  readonly mapped?: { readonly fd: number; readonly areas: readonly MappedArea[] };
}

/** The destination of a device's interrupts. */
export interface InterruptSink {
  /** Whether an interrupt on `vector` would reach the guest. */
  isBound(vector: number): boolean;
  /** Sends it. Returns whether it was sent. */
  signal(vector: number): boolean;
}

export interface IvshmemDeviceOptions {
  /** Traps accesses to the output sections of other peers. */
  readonly isolate: boolean;
  /** See `counters.ts`. */
  readonly counters: Float64Array;
  readonly interrupts: InterruptSink;
  /** See DeviceModel. */
  readonly registers: Uint8Array | RegistersInUse;
  /** Handles all events that are pending at the port: they happened before the access that follows. */
  readonly settle: () => void;
}

/**
 * The ivshmem v2 device on a port. Accesses of the guest go to the model, which answers with actions: doorbells and
 * states of the port. Interrupts of the port go to the guest. It is a PciDevice of `../vfio-user`, which it does not
 * import: nothing in this folder depends on how the device is offered.
 */
export class IvshmemDevice {
  readonly configurationSize = CONFIGURATION_SIZE;
  readonly bars: readonly Bar[];
  readonly #port: HostPort;
  readonly #model: DeviceModel;
  readonly #memory: MemoryBar;
  readonly #counters: Float64Array;
  readonly #interrupts: InterruptSink;
  readonly #settle: () => void;

  /** A device after reset, or one in use. The port stays the caller's, and outlives it. Throws Error, see DeviceModel. */
  constructor(port: HostPort, { isolate, counters, interrupts, registers, settle }: IvshmemDeviceOptions) {
    this.#port = port;
    this.#model = new DeviceModel(port, registers);
    this.#memory = new MemoryBar(port);
    this.#counters = counters;
    this.#interrupts = interrupts;
    this.#settle = settle;
    const areas = mappedAreas(port.layout, port.id, isolate);
    const mapped = areas.length > 0 ? { mapped: { fd: port.memoryFd, areas } } : {};
    this.bars = [
      { size: pci.REGISTER_REGION_SIZE },
      { size: msixRegionSize(port.vectors) },
      { size: memoryRegionSize(port.layout), ...mapped },
    ];
  }

  readConfiguration(offset: number, into: Uint8Array): void {
    this.#counters[Counter.configurationReads]!++;
    this.#model.configuration.read(offset, into);
  }

  writeConfiguration(offset: number, bytes: Uint8Array): void {
    this.#counters[Counter.configurationWrites]!++;
    this.#settle();
    this.#model.configuration.write(offset, bytes);
  }

  readBar(bar: number, offset: number, into: Uint8Array): void {
    switch (bar) {
      case pci.REGISTER_BAR:
        this.#readRegister(offset, into);
        return;
      case pci.MEMORY_BAR:
        this.#counters[Counter.memoryReads]!++;
        this.#memory.read(offset, into);
        return;
      // The VMM keeps the MSI-X table of BAR 1 itself, and there are no pending interrupts: all bits are 0.
    }
  }

  writeBar(bar: number, offset: number, bytes: Uint8Array): void {
    switch (bar) {
      case pci.REGISTER_BAR:
        this.#writeRegister(offset, bytes);
        return;
      case pci.MEMORY_BAR:
        this.#counters[Counter.memoryWrites]!++;
        this.#memory.write(offset, bytes);
    }
  }

  #readRegister(offset: number, into: Uint8Array): void {
    this.#counters[Counter.registerReads]!++;
    if (into.length !== 4) return;
    // In one-shot mode, a pending interrupt changes the value.
    this.#settle();
    const value = this.#model.readRegister(offset, 4);
    new DataView(into.buffer, into.byteOffset).setUint32(0, value, true);
  }

  #writeRegister(offset: number, bytes: Uint8Array): void {
    this.#counters[Counter.registerWrites]!++;
    if (bytes.length !== 4) return;
    // An interrupt that came while interrupts were disabled is lost, even if this access enables them.
    this.#settle();
    const value = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
    const performed = this.#perform(this.#model.writeRegister(offset, 4, value));
    if (offset !== pci.Register.DOORBELL) return;
    this.#counters[Counter.doorbells]!++;
    if (!performed) this.#counters[Counter.doorbellsWithoutEffect]!++;
  }

  /** Returns whether anything was done. */
  #perform(action: DeviceAction | null): boolean {
    switch (action?.type) {
      case 'ring':
        return this.#port.ring(action.peer, action.vector);
      case 'state':
        this.#port.state = action.value;
        return true;
      default:
        return false;
    }
  }

  /** An interrupt of the port. */
  interrupt(vector: number): void {
    const interrupts = this.#interrupts;
    const sent = interrupts.isBound(vector) && this.#model.interrupt() && interrupts.signal(vector);
    this.#counters[sent ? Counter.interrupts : Counter.interruptsDropped]!++;
  }

  /**
   * For a device in use whose process was killed at any point: repeats what may have been lost between a change of a register
   * and its effect. Interrupts and doorbells are hints, so one too many does no harm.
   */
  repeat(): void {
    const { id, maxPeers, vectors } = this.#port;
    this.#port.state = this.#model.state;
    for (let peer = 0; peer < maxPeers; peer++) if (peer !== id) this.#port.ring(peer, 0);
    if (!this.#model.mayHaveLostInterrupt) return;
    for (let vector = 0; vector < vectors; vector++) this.#interrupts.signal(vector);
  }

  /** Device reset. */
  reset(): void {
    this.#counters[Counter.resets]!++;
    this.#settle();
    this.#perform(this.#model.reset());
  }

  /** The VMM has disconnected: sets the state to 0. */
  close(): void {
    this.#perform(this.#model.reset());
  }
}
