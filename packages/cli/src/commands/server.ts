import { isatty } from 'node:tty';
import { runServer, serverUsage } from '@ivshmem/host-server/service';
import { openOutput } from '@ivshmem/linux/process';
import type { Command } from 'commander';

/** `ivshmem server`: its options are those of the original host server and more, all defined in packages/host-server. */
export function addServerCommand(program: Command, finish: (code: number) => void): void {
  const command = program
    .command('server')
    .helpOption(false)
    .allowUnknownOption()
    .argument('[options...]')
    .passThroughOptions();
  command.helpInformation = () => serverUsage('ivshmem server', 'extended');
  command.action(async (argv: string[]) => {
    await using stdout = openOutput(1);
    await using stderr = openOutput(2);
    finish(
      await runServer(argv, {
        stdout,
        stderr,
        terminal: isatty(1),
        program: 'ivshmem server',
        dialect: 'extended',
      }),
    );
  });
}
