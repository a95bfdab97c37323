import { findProcesses, type ServerReport, socketName } from '@ivshmem/monitor';

/**
 * Queries the host server at `socketPath`, with its connected peers, through the control socket of its process. Rejects with
 * an Error of one line if no such server is found.
 */
export async function queryPeers(socketPath: string): Promise<ServerReport> {
  const wanted = socketName(socketPath);
  const { processes, hidden } = await findProcesses();
  for (const { report } of processes) {
    for (const part of report?.parts ?? []) {
      if (part.kind === 'server' && part.socket === wanted) return part;
    }
  }
  const others = hidden > 0 ? `; ${hidden} processes of other users were not asked` : '';
  throw new Error(
    `${socketPath}: no server with a control socket listens there: start one with \`ivshmem server\`, or give its socket with -S${others}`,
  );
}
