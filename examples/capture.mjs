// A cable with a monitor: passes frames between two links, and writes each into a file for Wireshark or tcpdump.
// Usage: node capture.mjs SOCKET SOCKET FILE.pcapng
//
// The format is pcapng (https://ietf-opsawg-wg.github.io/draft-ietf-opsawg-pcap/draft-ietf-opsawg-pcapng.html).

import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { openEthernet } from '@ivshmem/net';

const [first, second, path] = process.argv.slice(2);

/** A block: type, length, body, padding to 32 bits, and the length once more, so that readers can go backwards. */
function block(type, body) {
  const length = 12 + Math.ceil(body.length / 4) * 4;
  const bytes = Buffer.alloc(length);
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(length, 4);
  bytes.set(body, 8);
  bytes.writeUInt32LE(length, length - 4);
  return bytes;
}

/** Section header: byte order, version 1.0, length of the section not given. */
const sectionHeader = block(0x0a0d0d0a, Buffer.from('4d3c2b1a01000000ffffffffffffffff', 'hex'));
/** Interface description: Ethernet, no limit, and the option if_tsresol (9): timestamps in units of 10^-9 s. */
const interfaceDescription = block(1, Buffer.from('01000000000000000900010009000000' + '00000000', 'hex'));

const begin = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();

/** Enhanced packet block: interface, time in two halves, captured and original length, the frame. */
function packet(interfaceId, frame) {
  const time = begin + process.hrtime.bigint();
  const body = Buffer.alloc(20 + frame.length);
  body.writeUInt32LE(interfaceId, 0);
  body.writeUInt32LE(Number(time >> 32n), 4);
  body.writeUInt32LE(Number(time & 0xffffffffn), 8);
  body.writeUInt32LE(frame.length, 12);
  body.writeUInt32LE(frame.length, 16);
  body.set(frame, 20);
  return block(6, body);
}

const file = createWriteStream(path);
file.write(Buffer.concat([sectionHeader, interfaceDescription, interfaceDescription]));
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
