// A cable with a monitor: passes frames between two links, and writes each into a file for Wireshark or tcpdump.
// Usage: node capture.mjs SOCKET SOCKET FILE.pcapng

import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { openEthernet } from '@ivshmem/net';
import { enhancedPacket, interfaceDescription, sectionHeader } from '@ivshmem/net/capture';

const [first, second, path] = process.argv.slice(2);

const begin = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();

function packet(interfaceId, frame) {
  const time = begin + process.hrtime.bigint();
  return enhancedPacket({ interfaceId, time, bytes: frame, length: frame.length });
}

const file = createWriteStream(path);
file.write(sectionHeader('capture.mjs'));
for (const name of [first, second]) file.write(interfaceDescription({ name }));
const links = [];
for (const socketPath of [first, second]) {
  links.push(await openEthernet({ port: { type: 'server', socketPath } }));
}

/** Passes frames one way. A file that is slow to write slows the link down, since frames stay in the ring meanwhile. */
async function pass(from, to, interfaceId) {
  for await (const frame of from.receive()) {
    if (!file.write(packet(interfaceId, frame))) await once(file, 'drain');
    try {
      await to.send(frame);
    } catch (error) {
      console.error(error.message);
    }
  }
}

const [a, b] = links;
const passed = Promise.all([pass(a, b, 0), pass(b, a, 1)]);
for (const [i, link] of links.entries()) {
  link.state$.subscribe(({ carrier }) => console.log(`link ${i}: ${carrier ? 'up' : 'down'}`));
}
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => links.map((link) => link.close()));
}
await passed;
file.end();
