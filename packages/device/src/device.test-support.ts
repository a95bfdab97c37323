import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHostServer, type HostServer, type HostServerOptions } from '@ivshmem/host-server';
import { UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { pci } from '@ivshmem/transport/protocol';
import { filter, firstValueFrom } from 'rxjs';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { createDevice, type Device } from './device.ts';
import type { DeviceState } from './device-messages.ts';
import type { DeviceOptions } from './device-options.ts';
import { Region } from './vfio-user/messages.ts';
import { VmmClient } from './vfio-user/vmm-client.test-support.ts';

export const openFds = () => readdirSync('/proc/self/fd').length;

/** Resolves when a device is in a state. */
export const inState = (device: Device, state: DeviceState) =>
  firstValueFrom(device.state$.pipe(filter((now) => now === state)));

/** Resolves with the next line of a device's log that matches. */
export const logLine = (device: Device, pattern: RegExp) =>
  firstValueFrom(device.log$.pipe(filter((text) => pattern.test(text))));

/** What {@link useDevices} gives to the tests of a suite. */
export interface Fixture {
  readonly directory: string;
  readonly serverPath: string;
  /** Those that {@link serve} has started. */
  readonly servers: readonly HostServer[];
  /** A host server; by default three peers, four vectors and sections of 64 KiB. */
  serve(options?: HostServerOptions): HostServer;
  device(options?: Partial<DeviceOptions>): Promise<Device>;
  /** A VMM that is connected to the device made last, or to the one with a number. */
  vmm(number?: number): VmmClient;
}

/** Servers, devices and VMMs that are closed after each test, or those of a file; they must not leave a descriptor or a file. */
export function useDevices(scope: 'test' | 'file' = 'test'): Fixture {
  let directory: string;
  let before: number;
  const servers: HostServer[] = [];
  const devices: Device[] = [];
  const clients: VmmClient[] = [];
  let made = 0;

  beforeAll(async () => {
    // The poller's own descriptors, and those of the first worker, which the process keeps.
    const [a, b] = UnixSocket.pair();
    a.close();
    await new Promise<void>((resolve) => {
      mainPoller.add(b.fd, EPOLLIN, () => {
        mainPoller.remove(b.fd);
        resolve();
      });
    });
    b.close();
    const path = join(tmpdir(), `no-server-${process.pid}`);
    await expect(createDevice({ socketPath: path, vfioUser: `${path}-vfio` })).rejects.toThrow('ENOENT');
  });

  const [begin, end] = scope === 'test' ? [beforeEach, afterEach] : [beforeAll, afterAll];
  begin(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-device-'));
    before = openFds();
    made = 0;
  });

  end(async () => {
    for (const client of clients.splice(0)) client.close();
    await Promise.all(devices.splice(0).map((device) => device.close()));
    for (const server of servers.splice(0)) server.close();
    expect(openFds()).toBe(before);
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  const serverPath = () => join(directory, 'server');
  return {
    get directory() {
      return directory;
    },
    get serverPath() {
      return serverPath();
    },
    servers,
    serve(options = {}) {
      const server = createHostServer({
        socketPath: serverPath(),
        size: 0x100000,
        outputSectionSize: 0x10000,
        maxPeers: 3,
        vectors: 4,
        protocol: 1,
        ...options,
      });
      servers.push(server);
      return server;
    },
    async device(options = {}) {
      const device = await createDevice({
        socketPath: serverPath(),
        vfioUser: join(directory, `vfio-${made}`),
        ...options,
      });
      made++;
      devices.push(device);
      return device;
    },
    vmm(number = made - 1) {
      const client = new VmmClient(join(directory, `vfio-${number}`));
      clients.push(client);
      return client;
    },
  };
}

/** Two devices with a VMM each, all vectors enabled. */
export async function pair(fixture: Fixture, options: { isolate?: boolean } = {}) {
  fixture.serve();
  const devices = [await fixture.device(options), await fixture.device(options)] as const;
  const vmms = [fixture.vmm(0), fixture.vmm(1)] as const;
  const bars = vmms.map((vmm) => vmm.start());
  const irqs = vmms.map((vmm) => {
    const fds = vmm.enableMsix(4);
    vmm.writeRegister(pci.Register.INTERRUPT_CONTROL, 1);
    return fds;
  });
  // Until the first device has been notified of the second one.
  const reaches = () => {
    const { doorbellsWithoutEffect } = devices[0].stats();
    vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 3);
    return devices[0].stats().doorbellsWithoutEffect === doorbellsWithoutEffect;
  };
  while (!reaches()) await new Promise((resolve) => setImmediate(resolve));
  vmms[1].awaitInterrupt(irqs[1]![3]!);
  return { devices, vmms, bars, irqs };
}

/** A peer's entry of the State Table, as the guest of a VMM reads it. */
export const tableEntry = (vmm: VmmClient, peer: number) => vmm.read(Region.BAR2, peer * 4, 4).readUInt32LE();
