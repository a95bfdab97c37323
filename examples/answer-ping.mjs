// A peer without network stack: answers ARP and ping for one address. Usage: node answer-ping.mjs SOCKET
import { openEthernet } from '@ivshmem/net';

const mac = Buffer.from('020000000002', 'hex');
const address = Buffer.from([10, 9, 0, 2]);

/** The answer to a frame, or undefined. */
function answer(frame) {
  const reply = Buffer.from(frame); // a copy: the frame itself is valid only during the callback
  if (reply.length < 42) return undefined;
  reply.copyWithin(0, 6, 12);
  reply.set(mac, 6);
  const etherType = reply.readUInt16BE(12);
  if (etherType === 0x0806 && reply.readUInt16BE(20) === 1 && address.equals(reply.subarray(38, 42))) {
    reply.writeUInt16BE(2, 20); // a reply: the sender's addresses become the target's
    reply.copyWithin(32, 22, 32);
    reply.set(mac, 22);
    reply.set(address, 28);
    return reply;
  }
  const isEcho = etherType === 0x0800 && reply[14] === 0x45 && reply[23] === 1 && reply[34] === 8;
  if (!isEcho || !address.equals(reply.subarray(30, 34))) return undefined;
  reply.copyWithin(30, 26, 30);
  reply.set(address, 26);
  const checksum = reply.readUInt16BE(36) + 0x0800; // type 8 becomes 0, and the checksum stays right
  reply[34] = 0;
  reply.writeUInt16BE((checksum & 0xffff) + (checksum >>> 16), 36);
  return reply;
}

const link = await openEthernet({
  port: { type: 'server', socketPath: process.argv[2] },
  onFrames: (frames) => {
    const answers = frames.map(answer).filter((reply) => reply !== undefined);
    link.send(answers).catch((error) => console.error(error.message));
  },
});
link.log$.subscribe((line) => console.log(line));
link.state$.subscribe(({ carrier }) => console.log(carrier ? 'the peer is there' : 'no peer'));
process.once('SIGTERM', () => link.close());
process.once('SIGINT', () => link.close());
