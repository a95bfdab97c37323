// Sends numbered frames as fast as the link takes them, and counts those that an echo peer at the other end sends back.
// Usage: node generate-traffic.mjs SOCKET [COUNT [BYTES]]
import { once } from 'node:events';
import { openEthernet } from '@ivshmem/net';
import { filter, firstValueFrom } from 'rxjs';

const [socketPath, count = '100000', bytes = '1514'] = process.argv.slice(2);
const COUNT = Number(count);
const BURST = 32; // frames for each call of send(): they become visible to the peer together

let back = 0;
let wrong = 0;
const link = await openEthernet({
  port: { type: 'server', socketPath },
  // Counting needs no copy, so the frames of a burst are looked at where they are.
  onFrames(frames) {
    for (const frame of frames) {
      const number = new DataView(frame.buffer, frame.byteOffset).getUint32(14);
      if (number !== back++) wrong++;
    }
    if (back >= COUNT) process.emit('all back');
  },
});
const allBack = once(process, 'all back');
await firstValueFrom(link.state$.pipe(filter(({ carrier }) => carrier))); // the peer is there

const frames = Array.from({ length: BURST }, () => {
  const frame = Buffer.alloc(Number(bytes));
  frame.write('02000000000202000000000188b5', 'hex'); // to, from, EtherType for local experiments
  return frame;
});
const start = performance.now();
for (let sent = 0; sent < COUNT; sent += BURST) {
  const burst = frames.slice(0, COUNT - sent);
  for (const [i, frame] of burst.entries()) frame.writeUInt32BE(sent + i, 14);
  await link.send(burst); // resolves when they are in the ring: from then on the buffers are ours again
}
await allBack;
const seconds = (performance.now() - start) / 1000;
const rate = Math.round(COUNT / seconds / 1000);
console.log(`${COUNT} frames of ${bytes} bytes, ${back} came back, ${wrong} out of order`);
console.log(`${rate} thousand frames/s in each direction`);
await link.close();
