import { readFileSync } from 'node:fs';
import { type PeerList, queryPeers } from '@ivshmem/host-server/service';
import { printable } from '@ivshmem/linux/process';
import { stateName } from '@ivshmem/transport/protocol';
import type { Command } from 'commander';
import { EXIT_OK } from './exit.ts';
import { jsonLine, standardOutput } from './printer.ts';

const EXAMPLES = `
Examples:
  ivshmem peers -S /run/ivshmem.sock
  ivshmem peers -S /run/ivshmem.sock --json | jq '.peers[].pid'
`;

/** The protocol whose states have names. */
const ETHERNET = 0x0001;

export function addPeersCommand(program: Command, finish: (code: number) => void): void {
  program
    .command('peers')
    .description(
      'Lists the peers of a host server that `ivshmem server` runs: ID, process, user, command, state and time of joining. Asks at the control socket, which only the user of the server can open.',
    )
    .option('-S, --socket <path>', "the host server's socket", '/tmp/ivshmem_socket')
    .option('--json', 'print one JSON object', false)
    .addHelpText('after', EXAMPLES)
    .action(async ({ socket, json }: { socket: string; json: boolean }) => {
      const list = await queryPeers(socket);
      const rows = list.peers.map((peer) => ({
        ...peer,
        stateName: list.protocol === ETHERNET ? stateName(peer.state) : null,
        command: commandOf(peer.pid),
      }));
      standardOutput().write(json ? jsonLine({ ...list, peers: rows }) : table(list, rows));
      finish(EXIT_OK);
    });
}

type Row = PeerList['peers'][number] & { readonly stateName: string | null; readonly command: string | null };

/** The name of a process; null where it is gone, or in another PID namespace. */
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
