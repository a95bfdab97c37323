import { readFileSync } from 'node:fs';
import { queryPeers } from '@ivshmem/host-server/service';
import { printable } from '@ivshmem/linux/process';
import { linkName, type PeerReport, type ServerReport } from '@ivshmem/monitor';
import { stateName } from '@ivshmem/transport/protocol';
import { EXIT_OK } from '../exit.ts';
import { jsonLine } from '../output/json-line.ts';
import { standardOutput } from '../output/standard-output.ts';
import { tableLines } from '../output/table.ts';
import type { PeersOptions } from './peers.ts';

/** The protocol whose states have names. */
const ETHERNET = 0x0001;

/** Prints the peers of a host server. */
export async function listPeers({ socket, json }: PeersOptions): Promise<number> {
  const server = await queryPeers(socket);
  const rows = server.peers.map((peer) => ({
    ...peer,
    stateName: server.protocol === ETHERNET ? stateName(peer.state) : null,
    command: commandOf(peer.pid),
  }));
  standardOutput().write(json ? jsonLine(jsonOf(server, rows)) : table(server, rows));
  return EXIT_OK;
}

type Row = PeerReport & { readonly stateName: string | null; readonly command: string | null };

/** The name of a process; null if it has ended, or is in another PID namespace. */
function commandOf(pid: number): string | null {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd();
  } catch {
    return null;
  }
}

function jsonOf(server: ServerReport, peers: readonly Row[]): object {
  const { socket: socketPath, size, outputSectionSize, maxPeers, vectors, protocol } = server;
  return { link: linkName(server), socketPath, size, outputSectionSize, maxPeers, vectors, protocol, peers };
}

function table(server: ServerReport, rows: readonly Row[]): string {
  const { maxPeers, vectors, protocol } = server;
  const vectorText = `${vectors} vector${vectors === 1 ? '' : 's'}`;
  const title = `${printable(linkName(server))}: ${rows.length} of ${maxPeers} peers, ${vectorText}, protocol 0x${protocol.toString(16).padStart(4, '0')}\n`;
  if (rows.length === 0) return title;
  const cells = [
    ['ID', 'PID', 'UID', 'COMMAND', 'STATE', 'SINCE', 'WAITING'],
    ...rows.map(({ id, pid, uid, command, state, stateName: name, since, waiting }) => [
      String(id),
      pid === 0 ? '-' : String(pid),
      String(uid),
      // A process names itself.
      command === null ? '-' : printable(command),
      name ?? String(state),
      since,
      String(waiting),
    ]),
  ];
  const lines = tableLines(cells);
  return `${title}${lines.join('\n')}\n`;
}
