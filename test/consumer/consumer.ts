import { type Device, DeviceModel, type DeviceOptions } from '@ivshmem/device';
import { createHostServer, type HostServerEvent } from '@ivshmem/host-server';
import { parseConfiguration } from '@ivshmem/host-server/service';
import { closeFd, SystemCallError } from '@ivshmem/linux';
import { createMemfd, mapShared, PAGE_SIZE } from '@ivshmem/linux/memory';
import { readPciConfig } from '@ivshmem/linux/pci';
import { type Link, type LinkOptions, MAX_BUSY_POLL, openEthernet } from '@ivshmem/net';
import { percentile, type TcpTransferOptions } from '@ivshmem/traffic';
import type { SharedMemory } from '@ivshmem/transport';
import { type MemoryLayout, memoryLayout, parsePciConfig } from '@ivshmem/transport/protocol';

// Uses each package as a strict program would. Compiled with the oldest TypeScript, for which nothing else is installed.

export const link = (options: LinkOptions, use: (link: Link) => void): [LinkOptions, typeof use] => [
  options,
  use,
];
export const device = (
  options: DeviceOptions,
  use: (device: Device) => void,
): [DeviceOptions, typeof use] => [options, use];
export const states = (memory: SharedMemory): number => memory.stateTable[0] ?? 0;
export const identity = (address: string) => parsePciConfig(readPciConfig(address));
export const transfer = (from: string, to: string): TcpTransferOptions => ({
  from,
  to,
  address: '10.0.0.2',
  seconds: 1,
});

declare const process: { readonly argv: readonly string[] };
const socketPath = process.argv[2]!;
const layout: MemoryLayout = memoryLayout(1 << 20, 2, 65536);
const events: HostServerEvent['type'][] = [];
const server = createHostServer({ socketPath, size: 1 << 20, outputSectionSize: 65536 });
server.events$.subscribe(({ type }) => events.push(type));
server.close();
await server.closed;

const memory = { size: 1 << 20, outputSectionSize: 65536, protocol: 1 };
let received = 0;
{
  await using _server = createHostServer({ socketPath, ...memory, vectors: 2 });
  const port = { type: 'server', socketPath } as const;
  await using one = await openEthernet({ port });
  await using other = await openEthernet({ port });
  await one.send(new Uint8Array(60).fill(7));
  for await (const frame of other.receive()) {
    received = frame.length;
    break;
  }
}

const fd = createMemfd('consumer', PAGE_SIZE);
{
  using mapping = mapShared(fd, PAGE_SIZE, { write: true });
  new Uint8Array(mapping.buffer)[0] = 1;
}
closeFd(fd);
let refusal = '';
try {
  mapShared(fd, PAGE_SIZE);
} catch (error) {
  if (!(error instanceof SystemCallError)) throw error;
  refusal = error.code;
}
console.log(
  JSON.stringify({
    sections: typeof layout,
    events: events.length >= 0,
    refusal,
    received,
    busyPoll: MAX_BUSY_POLL,
    median: percentile(Float64Array.of(1, 2, 3), 50),
    model: typeof DeviceModel,
    configuration: typeof parseConfiguration,
  }),
);
