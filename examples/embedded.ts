// Host server, device for a virtual machine and the host's end of the link in one program: what `ivshmem vm` does, for
// programs that start virtual machines themselves. As root. Usage: node examples/dist/embedded.js DIRECTORY NETNS
import { join } from 'node:path';
import { createDevice, qemuOption } from '@ivshmem/device';
import { createHostServer } from '@ivshmem/host-server';
import { createLink } from '@ivshmem/net';

const [directory, netns] = process.argv.slice(2);
if (directory === undefined || netns === undefined) throw new Error('usage: embedded.js DIRECTORY NETNS');
const socketPath = join(directory, 'link.sock');
const vfioUser = join(directory, 'vm.sock');
const MiB = 2 ** 20;

// What `await using` declares is closed at the end of the program, the last one first, also if a later step fails.
await using server = createHostServer({
  socketPath,
  size: 4 * MiB,
  outputSectionSize: MiB,
  maxPeers: 2, // an Ethernet link has two
  vectors: 2, // for states and for frames
  protocol: 1, // Ethernet
});
// One peer: the device of the virtual machine.
await using device = await createDevice({ socketPath, vfioUser });
// The other peer: an interface of this host, in a network namespace.
const port = { type: 'server', socketPath } as const;
await using link = await createLink({ port, tap: 'ivn0', addresses: ['10.9.0.1/24'], netns });

server.events$.subscribe(({ type }) => console.log(`server: ${type}`));
device.state$.subscribe((state) => console.log(`device: ${state}`));
link.state$.subscribe(({ carrier }) => console.log(`link: ${carrier ? 'up' : 'down'}`));
console.log(`qemu-system-x86_64 … ${qemuOption(vfioUser)}`);

const signal = new Promise<null>((resolve) => {
  process.once('SIGTERM', () => resolve(null));
  process.once('SIGINT', () => resolve(null));
});
// All three go on by themselves. If device or link fails, its `closed` says why.
const failure = await Promise.race([signal, device.closed, link.closed]);
if (failure !== null) throw failure;
