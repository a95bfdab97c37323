import { join } from 'node:path';
import { createDevice, type Device } from '@ivshmem/device';
import { createHostServer, type HostServer, type Observed } from '@ivshmem/host-server';
import { Guest, type Job } from './guest.ts';
import { GUEST_WORKSPACE } from './guest-files.ts';
import type { Line } from './lines.ts';
import { disk, ivshmemDevice, networkCard } from './qemu.ts';
import { type VmSoftware, vmSoftware } from './software.ts';
import { removeDirectory, temporaryDirectory } from './temporary-directory.ts';

/** Default size of each output section and of the whole memory, in bytes. */
const SECTION_SIZE = 0x100000;
const MEMORY_SIZE = 0x400000;

export interface RigOptions {
  /** Virtual machines, each with a device of its own; the other peers are the caller's. */
  readonly guests: 1 | 2;
  readonly isolate?: boolean;
  /** False: guests without an IOMMU. */
  readonly iommu?: boolean;
  /** A network card, too: both are joined by a cable. */
  readonly networkCards?: boolean;
  /** A file that guests see as the disk /dev/vda, read-only. */
  readonly disk?: string;
}

/** A host server, devices on it, and a guest for each: the parts of a link between virtual machines. */
export class VmRig {
  readonly directory = temporaryDirectory();
  readonly socket = join(this.directory, 'server');
  readonly devices: Device[] = [];
  readonly guests: Guest[] = [];
  readonly #options: RigOptions;
  readonly #software: VmSoftware;
  #server: HostServer | undefined;

  private constructor(software: VmSoftware, options: RigOptions) {
    this.#software = software;
    this.#options = options;
  }

  /** Starts all guests. `log` receives a line for each slow step. On a failure, cleans up and rejects. */
  static async start(options: RigOptions, log?: (line: string) => void): Promise<VmRig> {
    const rig = new VmRig(vmSoftware(log), options);
    try {
      rig.startServer();
      for (let n = 0; n < options.guests; n++) await rig.startDevice(n);
      if (options.networkCards) for (let n = 0; n < options.guests; n++) await rig.startGuest(n);
      else await Promise.all(rig.devices.map((_, n) => rig.startGuest(n)));
      return rig;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  startServer(): void {
    this.#server = createHostServer({
      socketPath: this.socket,
      size: MEMORY_SIZE,
      outputSectionSize: SECTION_SIZE,
      vectors: 2,
      protocol: 1,
    });
  }

  stopServer(): void {
    this.#server?.close();
  }

  /** What a capture needs. */
  observe(): Observed {
    return this.#server!.observe();
  }

  vfioUser(n: number): string {
    return join(this.directory, `device${n}`);
  }

  async startDevice(n: number): Promise<Device> {
    const { isolate = false } = this.#options;
    const device = await createDevice({ socketPath: this.socket, vfioUser: this.vfioUser(n), isolate });
    this.devices[n] = device;
    return device;
  }

  async startGuest(n: number): Promise<Guest> {
    const { iommu = true, networkCards = false } = this.#options;
    const devices = ivshmemDevice(this.vfioUser(n));
    if (networkCards) {
      const end = n === 0 ? 'listens' : 'connects';
      devices.push(...networkCard(join(this.directory, 'cable'), end, `02:00:00:00:00:0${n + 1}`));
    }
    if (this.#options.disk !== undefined) devices.push(...disk(this.#options.disk));
    const guest = await Guest.start(this.#software, { name: `${n}`, devices, iommu });
    this.guests[n] = guest;
    return guest;
  }

  /** Starts `ivshmem net` in a guest, with an address of its own. */
  startLink(n: number, ...more: string[]): Job {
    return startLink(this.guests[n]!, `10.77.0.${n + 1}/24`, ...more);
  }

  async close(): Promise<void> {
    await Promise.all(this.guests.map((guest) => guest.stop()));
    await Promise.all(this.devices.map((device) => device.close()));
    this.stopServer();
    removeDirectory(this.directory);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The command line, in a guest, of a program that was packed with our packages. */
export function guestProgram(path: string, ...argv: string[]): string {
  return ['exec', 'node', `${GUEST_WORKSPACE}/node_modules/@ivshmem/${path}`, ...argv].join(' ');
}

/** `ivshmem net` on the guest's device. */
export function startLink(guest: Guest, address: string, ...more: string[]): Job {
  const argv = ['net', '--json', '--pci', 'auto', '--tap', 'ivn0', '--address', address, ...more];
  return guest.job(guestProgram('cli/dist/bin/ivshmem.js', ...argv));
}

/** A line of `ivshmem net --json` that says that frames go both ways. */
export function isCarrierOn({ event, carrier }: Line): boolean {
  return event === 'state' && carrier;
}

/** A line of `ivshmem net --json` that says that frames don't. */
export function isCarrierOff({ event, carrier }: Line): boolean {
  return event === 'state' && !carrier;
}
