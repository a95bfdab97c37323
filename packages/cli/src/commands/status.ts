import type { Command } from 'commander';
import type { LoadCommand } from '../program.ts';

export interface StatusOptions {
  json?: boolean;
}

const EXAMPLES = `
Examples:
  All links:
    ivshmem status
  One link, by its name, interface or socket, in a script:
    ivshmem status ivn0 > /dev/null || echo 'ivn0 is down'
  MTU of each interface:
    ivshmem status --json | jq '.links[].parts[] | select(.kind == "interface") | {tap, mtu}'
`;

export function addStatusCommand(program: Command, run: (load: LoadCommand) => void): void {
  program
    .command('status')
    .description(
      'Shows all links, with the server, interfaces and devices of each: state and since when, MTU, offloads, faults. Finds the processes by their control sockets; shows those of this user, or with root those in /run/ivshmem. Exit code 1 if a part is down: an interface without carrier, a device without a VM, or a process that does not answer.',
    )
    .argument(
      '[link...]',
      'show only the links with this name, interface or socket; exit code 1 if there is none',
    )
    .option('--json', 'print one JSON object')
    .addHelpText('after', EXAMPLES)
    .action((names: string[], options: StatusOptions) =>
      run(async () => {
        const { showStatus } = await import('./show-status.ts');
        return () => showStatus(names, options);
      }),
    );
}
