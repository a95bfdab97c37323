import { PAGE_SIZE } from '@ivshmem/linux/memory';
import { listPciDevices, openPciResources, readPciConfig } from '@ivshmem/linux/pci';
import { isIvshmem2 } from '@ivshmem/transport/protocol';

// Runs inside a guest that has one ivshmem v2 device, without a driver: accesses its registers and its state table as
// any driver could, and prints one JSON object with what it read.

const address = listPciDevices().find((device) => isIvshmem2(readPciConfig(device)));
if (address === undefined) throw new Error('no ivshmem v2 device');
const device = openPciResources(address);
const registerMapping = device.mapBar(0, 0, PAGE_SIZE, true);
const tableMapping = device.mapBar(2, 0, PAGE_SIZE, true);
const registers = new Uint32Array(registerMapping.buffer);
const table = new Uint32Array(tableMapping.buffer);
const bytes = new Uint8Array(registerMapping.buffer);

/** Writes a register, and reads it back. */
const written = (index: number, value: number): number => {
  registers[index] = value;
  return registers[index]!;
};

const [id, maximumPeers] = registers;
const result = {
  id,
  maximumPeers,
  idWritten: written(0, 7),
  maximumPeersWritten: written(1, 7),
  interruptControl: [registers[2], written(2, 0xffffffff), written(2, 0xfffffffe)],
  state: [registers[4], written(4, 0x12345678)],
  tableAfterState: table[id!],
  tableWritten: [0, 1].map((peer) => {
    const before = table[peer];
    table[peer] = 0xdeadbeef;
    return table[peer] === before;
  }),
  stateAfterTable: registers[4],
  stateReset: written(4, 0),
  tableAfterReset: table[id!],
  // Neither backed by registers nor of the right width.
  unknownRead: [5, 6, 64, 1023].map((index) => registers[index]),
  unknownWritten: [5, 1023].map((index) => written(index, 0xffffffff)),
  stateAfterByteWrite: (() => {
    bytes[16] = 0xff;
    return registers[4];
  })(),
};
registers[2] = 0;
tableMapping.close();
registerMapping.close();
device.close();
process.stdout.write(`${JSON.stringify(result)}\n`);
