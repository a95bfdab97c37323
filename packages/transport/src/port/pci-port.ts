import { statSync } from 'node:fs';
import { closeFd, OptionError } from '@ivshmem/linux';
import { type Mapping, PAGE_SIZE } from '@ivshmem/linux/memory';
import {
  iommuGroup,
  listPciDevices,
  openPciResources,
  openVfioDevice,
  type PciDevice,
  pciDevicePath,
  readPciConfig,
  type VfioDevice,
} from '@ivshmem/linux/pci';
import { createEventFd, EPOLLET, EPOLLIN, type Poller, Timer } from '@ivshmem/linux/wait';
import type { MemoryLayout, Section } from '../protocol/memory-layout.ts';
import { isIvshmem2, parsePciConfig, pciMemoryLayout, protocolOf } from '../protocol/pci-config.ts';
import * as pci from '../protocol/pci-registers.ts';
import { PollInterval } from './poll-interval.ts';
import type { Port, PortEvent } from './port.ts';

/** How a driver in user space receives interrupts: through vfio-pci, or not at all, so that it has to poll. */
export type PciInterrupts = 'vfio' | 'poll';

/** An ivshmem v2 device on this machine's PCI bus. */
export interface PciSource {
  /** Address, such as `0000:00:05.0` or `00:05.0`; `auto` stands for the only device of protocol 0x0001. */
  readonly device: string;
  /** By default vfio if the device is behind an IOMMU, else poll. */
  readonly interrupts?: PciInterrupts;
}

/** Index of each register in an array of 32-bit words. */
const INDEX = {
  ID: pci.Register.ID / 4,
  MAXIMUM_PEERS: pci.Register.MAXIMUM_PEERS / 4,
  INTERRUPT_CONTROL: pci.Register.INTERRUPT_CONTROL / 4,
  DOORBELL: pci.Register.DOORBELL / 4,
  STATE: pci.Register.STATE / 4,
} as const;
const ETHERNET = 0x0001;
/** What reads return if the device does not answer. */
const NOBODY = 0xffffffff;
/** Polling intervals for devices without interrupts, in ms. */
const SHORTEST_POLL = 0.2;
const LONGEST_POLL = 10;
/** States are polled less often, since the device may have to emulate each read. In ms. */
const STATE_POLL = 20;

/** Throws {@link OptionError} if no device can be named like that. */
export function checkPciDevice(device: string): void {
  if (device === 'auto' || /^([0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i.test(device)) return;
  throw new OptionError('device', `PCI device ${device}: must be "auto" or an address such as 0000:00:05.0`);
}

/**
 * Opens the port of an ivshmem v2 device inside the machine that has it. Interrupts are handled on `poller`. Needs root.
 * Throws {@link OptionError} for an impossible address, else Error with one line: no such device, no IOMMU, a driver or another
 * process uses it, the device does not answer.
 */
export function openPciPort(source: PciSource, poller: Poller): Port {
  checkPciDevice(source.device);
  const address = findDevice(source.device);
  if (!listPciDevices().includes(address)) throw new Error(`${address}: no such PCI device: see lspci`);
  const interrupts = source.interrupts ?? (iommuGroup(address) === null ? 'poll' : 'vfio');
  if (interrupts === 'poll') return new PciPort(openPciResources(address), null, poller);
  const device = openVfioDevice(address);
  return new PciPort(device, device, poller);
}

function findDevice(device: string): string {
  if (device !== 'auto')
    return device.length > 'bb:dd.f'.length ? device.toLowerCase() : `0000:${device.toLowerCase()}`;
  const found = listPciDevices().filter((address) => {
    const config = readPciConfig(address);
    return isIvshmem2(config) && protocolOf(config) === ETHERNET;
  });
  if (found.length === 1) return found[0]!;
  throw new Error(
    found.length === 0
      ? 'no ivshmem v2 device of protocol 0x0001 (110a:4106, class ff0001) on the PCI bus of this machine'
      : `several ivshmem v2 devices: choose one of ${found.join(', ')}`,
  );
}

/**
 * A port on an ivshmem v2 PCI device. The device does what is its duty: state table, doorbells, interrupts.
 * Source: specification, "Guest-side Programming Model".
 */
class PciPort implements Port {
  readonly id: number;
  readonly maxPeers: number;
  readonly protocol: number;
  readonly vectors: number;
  readonly layout: MemoryLayout;
  readonly #device: PciDevice;
  readonly #mappings: Mapping[] = [];
  readonly #registers: Uint32Array;
  #stateTable: Uint32Array;
  readonly #outputs: (Mapping | undefined)[] = [];
  #readWrite: Mapping | undefined;
  #stopInterrupts: () => void = () => {};
  #onInterrupt: (vector: number) => void = () => {};
  #onEvent: (event: PortEvent) => void = () => {};
  #poll: { readonly timer: Timer; readonly interval: PollInterval } | undefined;
  #present = true;
  #open = true;

  /** Takes over the device; `vfio` is the same device if it can interrupt, else null. */
  constructor(device: PciDevice, vfio: VfioDevice | null, poller: Poller) {
    this.#device = device;
    this.#registers = new Uint32Array(0);
    this.#stateTable = new Uint32Array(0);
    try {
      const { address } = device;
      const config = parsePciConfig(readPciConfig(address));
      const [low, high] = device.readConfig(pci.COMMAND, 2);
      const enabled = low! | pci.COMMAND_MEMORY | pci.COMMAND_BUS_MASTER;
      device.writeConfig(pci.COMMAND, Uint8Array.of(enabled, high!));
      this.#registers = new Uint32Array(
        this.#map(pci.REGISTER_BAR, 0, pci.REGISTER_REGION_SIZE, true).buffer,
      );
      const id = this.#registers[INDEX.ID]!;
      const maxPeers = this.#registers[INDEX.MAXIMUM_PEERS]!;
      if (id === NOBODY) {
        throw new Error(
          `PCI device ${address}: does not answer: the process behind it on the host has ended`,
        );
      }
      const barSize = statSync(pciDevicePath(address, `resource${pci.MEMORY_BAR}`)).size;
      this.layout = pciMemoryLayout(config, maxPeers, barSize, PAGE_SIZE);
      if (id >= maxPeers) throw new Error(`PCI device ${address}: has ID ${id}, but only ${maxPeers} peers`);
      this.id = id;
      this.maxPeers = maxPeers;
      this.protocol = config.protocol;
      this.vectors = Math.max(config.vectors, 1);
      // An earlier driver may have left another state.
      this.#registers[INDEX.INTERRUPT_CONTROL] = 0;
      this.#registers[INDEX.STATE] = 0;
      device.writeConfig(config.vendorCapability + pci.PRIVILEGED_CONTROL, Uint8Array.of(0));
      const table = this.#map(pci.MEMORY_BAR, 0, config.stateTableSize, false);
      this.#stateTable = new Uint32Array(table.buffer, 0, maxPeers);
      if (vfio === null) this.#startPolling(poller);
      else this.#startInterrupts(vfio, config.vectors, poller);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** All of it: a guest cannot find out which pages are untouched, and an earlier driver may have left frames. */
  get dirtyOutput(): number {
    return this.layout.outputSectionSize;
  }

  get readWrite(): Section | null {
    const { readWriteOffset, readWriteSize } = this.layout;
    if (readWriteSize === 0) return null;
    this.#readWrite ??= this.#map(pci.MEMORY_BAR, readWriteOffset, readWriteSize, true);
    return this.#readWrite;
  }

  get output(): Section | null {
    return this.input(this.id);
  }

  input(peer: number): Section | null {
    this.#checkPeer(peer);
    const { outputOffset, outputSectionSize } = this.layout;
    if (outputSectionSize === 0) return null;
    const offset = outputOffset + peer * outputSectionSize;
    this.#outputs[peer] ??= this.#map(pci.MEMORY_BAR, offset, outputSectionSize, peer === this.id);
    return this.#outputs[peer];
  }

  peerState(peer: number): number {
    this.#checkPeer(peer);
    const state = this.#open ? Atomics.load(this.#stateTable, peer) : 0;
    if (state === NOBODY) this.#checkPresence();
    return state;
  }

  get state(): number {
    return this.#open ? this.#registers[INDEX.STATE]! : 0;
  }

  set state(value: number) {
    if (this.#open) this.#registers[INDEX.STATE] = value;
  }

  ring(peer: number, vector: number): boolean {
    if (!this.#open || !(peer >= 0 && peer < this.maxPeers && vector >= 0 && vector < this.vectors))
      return false;
    this.#registers[INDEX.DOORBELL] = (peer << 16) | vector;
    return true;
  }

  onInterrupt(handler: (vector: number) => void): void {
    this.#onInterrupt = handler;
  }

  onEvent(handler: (event: PortEvent) => void): void {
    this.#onEvent = handler;
  }

  expectMore(): void {
    const poll = this.#poll;
    if (poll?.interval.worked()) poll.timer.every(poll.interval.current);
  }

  #startInterrupts(vfio: VfioDevice, vectors: number, poller: Poller): void {
    if (vectors === 0) {
      throw new Error(
        `PCI device ${vfio.address}: it has no MSI-X, only its memory can be used: choose polling`,
      );
    }
    const fds: number[] = [];
    this.#stopInterrupts = () => {
      vfio.disableMsix();
      for (const fd of fds) {
        poller.remove(fd);
        closeFd(fd);
      }
    };
    for (let vector = 0; vector < vectors; vector++) {
      const fd = createEventFd();
      fds.push(fd);
      // Edge-triggered, and only the kernel signals it: the counter need never be emptied.
      poller.add(fd, EPOLLIN | EPOLLET, () => this.#onInterrupt(vector));
    }
    vfio.enableMsix(fds);
    this.#registers[INDEX.INTERRUPT_CONTROL] = 1;
  }

  #startPolling(poller: Poller): void {
    const interval = new PollInterval(SHORTEST_POLL, LONGEST_POLL);
    let lastState = 0;
    const timer = new Timer(poller, () => {
      if (!this.#open) return;
      const now = performance.now();
      if (this.vectors === 1 || now - lastState >= STATE_POLL) {
        lastState = now;
        this.#onInterrupt(0);
      }
      for (let vector = 1; vector < this.vectors && this.#open; vector++) this.#onInterrupt(vector);
      if (this.#open && interval.looked()) timer.every(interval.current);
    });
    this.#poll = { timer, interval };
    this.#stopInterrupts = () => timer.close();
    timer.every(interval.current);
  }

  /** A peer's state may have the value that is read from a device that does not answer; the ID cannot. */
  #checkPresence(): void {
    if (!this.#present || this.#registers[INDEX.ID] !== NOBODY) return;
    this.#present = false;
    const reason = `PCI device ${this.#device.address}: no longer answers: the process behind it on the host has ended`;
    this.#onEvent({ type: 'provider-gone', reason, usable: false });
  }

  #checkPeer(peer: number): void {
    if (Number.isInteger(peer) && peer >= 0 && peer < this.maxPeers) return;
    throw new RangeError(`peer ${peer}: only ${this.maxPeers} peers are possible`);
  }

  #map(bar: number, offset: number, length: number, write: boolean): Mapping {
    const mapping = this.#device.mapBar(bar, offset, length, write);
    this.#mappings.push(mapping);
    return mapping;
  }

  close(): void {
    if (!this.#open) return;
    if (this.#registers.length > 0) {
      this.#registers[INDEX.STATE] = 0;
      this.#registers[INDEX.INTERRUPT_CONTROL] = 0;
    }
    this.#open = false;
    this.#stopInterrupts();
    this.#poll = undefined;
    for (const mapping of this.#mappings) mapping.close();
    this.#device.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
