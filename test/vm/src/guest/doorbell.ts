import { PAGE_SIZE } from '@ivshmem/linux/memory';
import { listPciDevices, openPciResources, readPciConfig } from '@ivshmem/linux/pci';
import { isIvshmem2 } from '@ivshmem/transport/protocol';

// Runs inside a guest: prints how long a write to the Doorbell register takes, in µs, the median of many. It rings peer
// 65535, which does not exist: what is measured is the way from the guest to the device and back.

const ROUNDS = 2000;
const DOORBELL = 3;

const address = listPciDevices().find((device) => isIvshmem2(readPciConfig(device)));
if (address === undefined) throw new Error('no ivshmem v2 device');
const device = openPciResources(address);
const mapping = device.mapBar(0, 0, PAGE_SIZE, true);
const registers = new Uint32Array(mapping.buffer);
const times = new Float64Array(ROUNDS);
for (let i = 0; i < ROUNDS; i++) {
  const begin = performance.now();
  registers[DOORBELL] = 0xffff0000;
  times[i] = (performance.now() - begin) * 1000;
}
mapping.close();
device.close();
times.sort();
process.stdout.write(`${JSON.stringify({ median: times[ROUNDS / 2] })}\n`);
