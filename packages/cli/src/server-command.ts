import { runServer, serverUsage } from '@ivshmem/host-server';
import type { Command } from 'commander';

const EXAMPLES = `
Further options:
  --json    print each event as one JSON object a line (needs -F)

Examples:
  For Ethernet between two peers, in the foreground:
    ivshmem server -F -S /run/ivshmem.sock -l 4M -o 1M -n 2 -V 2 -P 1
  As a daemon, memory in a POSIX object that can be opened by name:
    ivshmem server -S /run/ivshmem.sock -M ivshmem -l 4M -o 1M -V 2 -P 1 -p /run/ivshmem.pid
  For three peers that share a read/write section only:
    ivshmem server -F -l 64M -n 3
`;

/** `ivshmem server`: the options of the original host server, which belong to packages/host-server. */
export function addServerCommand(program: Command, finish: (code: number) => void): void {
  const command = program
    .command('server')
    .summary('run a host server')
    .helpOption(false)
    .allowUnknownOption()
    .argument('[options...]')
    .passThroughOptions();
  command.helpInformation = () => `${serverUsage('ivshmem server')}${EXAMPLES}`;
  command.action(async (argv: string[]) => {
    if (argv.includes('-h') || argv.includes('--help')) {
      process.stdout.write(command.helpInformation());
      return finish(0);
    }
    const json = argv.includes('--json');
    const rest = argv.filter((argument) => argument !== '--json');
    finish(
      await runServer(rest, {
        stdout: process.stdout,
        stderr: process.stderr,
        program: 'ivshmem server',
        json,
      }),
    );
  });
}
