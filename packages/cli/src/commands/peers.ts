import type { Command } from 'commander';
import type { LoadCommand } from '../program.ts';

const EXAMPLES = `
Examples:
  ivshmem peers -S /run/ivshmem.sock
  ivshmem peers -S /run/ivshmem.sock --json | jq '.peers[].pid'
`;

export interface PeersOptions {
  socket: string;
  json?: boolean;
}

export function addPeersCommand(program: Command, run: (load: LoadCommand) => void): void {
  program
    .command('peers')
    .description(
      'Lists the peers that are connected to a host server (`ivshmem server`): ID, process, user, command, state, and since when. Connects to the control socket, which only the user that runs the server can open.',
    )
    .option('-S, --socket <path>', 'socket of the host server', '/tmp/ivshmem_socket')
    .option('--json', 'print one JSON object')
    .addHelpText('after', EXAMPLES)
    .action((options: PeersOptions) =>
      run(async () => {
        const { listPeers } = await import('./list-peers.ts');
        return () => listPeers(options);
      }),
    );
}
