// Two peers exchange Ethernet frames through shared memory; here in one process, with their host server.
import { createHostServer } from '@ivshmem/host-server';
import { openEthernet } from '@ivshmem/net';

const socketPath = `/tmp/two-peers-${process.pid}.sock`;
const memory = { size: 4 << 20, outputSectionSize: 1 << 20 };
const server = createHostServer({ socketPath, ...memory, maxPeers: 2, vectors: 2, protocol: 1 });
const peers = [];
for (let i = 0; i < 2; i++) peers.push(await openEthernet({ port: { type: 'server', socketPath } }));

const header = Buffer.from('02000000000202000000000188b5', 'hex'); // to, from, EtherType
for (const [from, to] of [peers, peers.toReversed()]) {
  await from.send(Buffer.concat([header, Buffer.from(`hello from peer ${from.info.id}`)]));
  const { value: frame } = await to.receive().next();
  console.log(`peer ${to.info.id}: ${Buffer.from(frame.subarray(14))}`);
}
for (const peer of peers) await peer.close();
server.close();
