import { createInterface } from 'node:readline';
import { mainPoller } from '@ivshmem/linux/wait';
import { openPciPort, type PciInterrupts } from '@ivshmem/transport';

// Runs inside a guest: opens the port of its ivshmem v2 device, prints a JSON object for each interrupt, and does what
// standard input says: "ring PEER VECTOR", "state VALUE", "write OFFSET VALUE" (a byte of the own output section),
// "read PEER OFFSET" (a byte of a section), "peer ID" (its state), "quit".

const port = openPciPort({ device: 'auto', interrupts: process.argv[2] as PciInterrupts }, mainPoller);
const print = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);
let interrupts = 0;
port.onInterrupt((vector) => print({ interrupt: vector, number: ++interrupts }));
port.onEvent((event) => print(event));
const { id, maxPeers, protocol, vectors, layout } = port;
print({ open: true, id, maxPeers, protocol, vectors, layout, readWrite: port.readWrite?.length });

const commands: Record<string, (a: number, b: number) => unknown> = {
  ring: (peer, vector) => port.ring(peer, vector),
  state: (value) => {
    port.state = value;
    return port.state;
  },
  write: (offset, value) => {
    new Uint8Array(port.output!.buffer)[offset] = value;
  },
  read: (peer, offset) => new Uint8Array(port.input(peer)!.buffer)[offset],
  peer: (peer) => port.peerState(peer),
};

const input = createInterface(process.stdin);
input.on('line', (line) => {
  const [command, a, b] = line.split(' ');
  if (command === 'quit') {
    port.close();
    process.exit();
  }
  print({ done: line, result: commands[command!]!(Number(a), Number(b)) ?? null });
});
