import { readFileSync } from 'node:fs';
import { type PeerList, queryPeers } from '@ivshmem/host-server/service';
import { printable } from '@ivshmem/linux/process';
import { stateName } from '@ivshmem/transport/protocol';
import { EXIT_OK } from '../exit.ts';
import { jsonLine } from '../output/json-line.ts';
import { standardOutput } from '../output/standard-output.ts';
import type { PeersOptions } from './peers.ts';

/** The protocol whose states have names. */
const ETHERNET = 0x0001;

/** Prints the peers of a host server. */
export async function listPeers({ socket, json }: PeersOptions): Promise<number> {
  const list = await queryPeers(socket);
  const rows = list.peers.map((peer) => ({
    ...peer,
    stateName: list.protocol === ETHERNET ? stateName(peer.state) : null,
    command: commandOf(peer.pid),
  }));
  standardOutput().write(json ? jsonLine({ ...list, peers: rows }) : table(list, rows));
  return EXIT_OK;
}

type Row = PeerList['peers'][number] & { readonly stateName: string | null; readonly command: string | null };

/** The name of a process; null if it has ended, or is in another PID namespace. */
function commandOf(pid: number): string | null {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd();
  } catch {
    return null;
  }
}

function table({ link, maxPeers, vectors, protocol }: PeerList, rows: readonly Row[]): string {
  const vectorText = `${vectors} vector${vectors === 1 ? '' : 's'}`;
  const title = `${printable(link)}: ${rows.length} of ${maxPeers} peers, ${vectorText}, protocol 0x${protocol.toString(16).padStart(4, '0')}\n`;
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
      since.toISOString(),
      String(waiting),
    ]),
  ];
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)));
  const lines = cells.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
  return `${title}${lines.join('\n')}\n`;
}
