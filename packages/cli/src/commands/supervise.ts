import type { Command } from 'commander';
import { descriptorCount, tryCount } from '../options/values.ts';
import type { LoadCommand } from '../program.ts';

const EXAMPLES = `
Examples:
  A host server that may be restarted or upgraded, without systemd:
    ivshmem supervise ivshmem server -F -S /run/ivshmem.sock -l 4M -o 1M -V 2 -P 1
  A link whose interface and connections outlive a crash:
    ivshmem supervise ivshmem net --socket /run/ivshmem.sock --tap ivn0 --address 10.0.0.1/24
`;

export interface SuperviseOptions {
  standby?: boolean;
  descriptors: number;
  tries: number;
}

export function addSuperviseCommand(program: Command, run: (load: LoadCommand) => void): void {
  program
    .command('supervise')
    .description(
      'Runs a program, keeps the file descriptors that it stores, and starts it again with them if it ends by a signal or a failure. This is what systemd does for a service with Restart=on-failure and FileDescriptorStoreMax=, for machines and containers without systemd. SIGTERM, SIGINT and SIGHUP are passed to the program. SIGUSR1 restarts it, for example after an upgrade: SIGTERM, and then a new start. After SIGTERM, SIGINT, exit code 0 or 2, it is not started again, and what it stored is closed.',
    )
    .argument('<command...>', 'the program and its arguments')
    .passThroughOptions()
    .option(
      '--standby',
      'keep a second process of the program loaded, which takes over: a link is without carrier for about a fifth of the time; for the commands of ivshmem only',
    )
    .option('--descriptors <number>', 'keep at most this many descriptors, 1 to 65536', descriptorCount, 4096)
    .option(
      '--tries <number>',
      'give up when the program has failed this many times in a row, 1 to 1000000, without being ready for a second in between',
      tryCount,
      10,
    )
    .option('--verbose', 'print stack traces of errors')
    .addHelpText('after', EXAMPLES)
    .action((command: string[], options: SuperviseOptions) =>
      run(async () => {
        const { runSupervise } = await import('./run-supervise.ts');
        return () => runSupervise(command, options);
      }),
    );
}
