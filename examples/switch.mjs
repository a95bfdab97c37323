// An Ethernet switch for two links or more, which learns where addresses are. Usage: node switch.mjs SOCKET SOCKET …
//
// A link has two ends. This program is one end of each link; the other ends (interfaces, VMs, programs) can then reach
// each other.
import { openEthernet } from '@ivshmem/net';

const MAX_ADDRESSES = 1024; // a station can invent any number of addresses
const WAITING = 256; // frames to one link that wait for room: beyond, the switch drops, as all switches do

/** By source address (as a number): the port it was last seen at. A Map keeps the order, so the oldest is first. */
const learned = new Map();
const ports = [];

function learn(address, port) {
  learned.delete(address);
  learned.set(address, port);
  if (learned.size > MAX_ADDRESSES) learned.delete(learned.keys().next().value);
}

function forward(frames, from) {
  for (const received of frames) {
    const frame = Buffer.from(received); // a copy: what is received is valid only during the callback
    learn(frame.readUIntBE(6, 6), from);
    const isGroup = (frame[0] & 1) === 1; // broadcast or multicast
    const known = isGroup ? undefined : learned.get(frame.readUIntBE(0, 6));
    const targets = known === undefined ? ports : [known];
    for (const to of targets) if (to !== from) to.queue.push(frame);
  }
  for (const port of ports) if (port !== from) pass(port);
}

/** Sends what waits for a port, unless that is being done: a slow link must not hold up the others. */
async function pass(port) {
  port.dropped += port.queue.splice(WAITING).length;
  if (port.sending || !port.carrier) return;
  port.sending = true;
  while (port.queue.length > 0) {
    const burst = port.queue.splice(0);
    const isFit = ({ length }) => length <= port.link.info.mtu + 18; // the MTU of the links may differ
    try {
      await port.link.send(burst.filter(isFit));
    } catch (error) {
      console.error(`${port.socketPath}: ${error.message}`);
    }
  }
  port.sending = false;
}

for (const socketPath of process.argv.slice(2)) {
  const port = { socketPath, queue: [], sending: false, carrier: false, dropped: 0 };
  port.link = await openEthernet({
    port: { type: 'server', socketPath },
    onFrames: (frames) => forward(frames, port),
  });
  ports.push(port);
  port.link.log$.subscribe((line) => console.error(`${socketPath}: ${line}`));
  port.link.state$.subscribe(({ carrier }) => {
    if (carrier !== port.carrier) console.log(`${socketPath}: ${carrier ? 'up' : 'down'}`);
    port.carrier = carrier;
    if (carrier) return;
    port.queue.length = 0;
    for (const [address, place] of learned) if (place === port) learned.delete(address);
  });
}

async function stop() {
  for (const { link, socketPath, dropped } of ports) {
    await link.close();
    console.log(`${socketPath}: dropped ${dropped}`);
  }
}
process.once('SIGTERM', stop);
process.once('SIGINT', stop);
