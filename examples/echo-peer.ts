// A peer that sends each frame back to where it came from. Usage: node examples/dist/echo-peer.js SOCKET
import { openEthernet } from '@ivshmem/net';

const [socketPath] = process.argv.slice(2);
if (socketPath === undefined) throw new Error('usage: echo-peer.js SOCKET');

const link = await openEthernet({ port: { type: 'server', socketPath } });
process.once('SIGTERM', () => link.close());
process.once('SIGINT', () => link.close());
link.log$.subscribe((line) => console.error(line));
link.state$.subscribe(({ carrier }) => console.log(carrier ? 'the peer is there' : 'no peer'));

// Each frame is a copy, ours to change. While `send` waits for room, later frames stay in the peer's ring: an echo that
// cannot keep up slows its peer down, and loses nothing.
for await (const frame of link.receive()) {
  const source = frame.slice(6, 12);
  frame.copyWithin(6, 0, 6);
  frame.set(source, 0);
  try {
    await link.send(frame);
  } catch (error) {
    console.error((error as Error).message); // the link has ended, or the frame is longer than our MTU allows
  }
}
