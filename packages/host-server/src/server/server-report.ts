import { type ServerReport, socketName } from '@ivshmem/monitor';
import type { HostServer } from './host-server.ts';

/** What the process of a server reports of it. `link`: name of its link, if it has one; `since`: when it was started. */
export function serverReport(server: HostServer, link: string | null, since: Date): ServerReport {
  const { socketPath, maxPeers, vectors, protocol, outputSectionSize, size } = server.options;
  return {
    kind: 'server',
    link,
    socket: socketName(socketPath),
    since: since.toISOString(),
    size,
    outputSectionSize,
    maxPeers,
    vectors,
    protocol,
    peers: server.peers.map((peer) => ({ ...peer, since: peer.since.toISOString() })),
  };
}
