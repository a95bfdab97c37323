import { isatty } from 'node:tty';
import { openLogStream, runServer, serverUsage } from '@ivshmem/host-server';
import type { Command } from 'commander';

/** `ivshmem server`: the options of the original host server and more, which belong to packages/host-server. */
export function addServerCommand(program: Command, finish: (code: number) => void): void {
  const command = program
    .command('server')
    .helpOption(false)
    .allowUnknownOption()
    .argument('[options...]')
    .passThroughOptions();
  command.helpInformation = () => serverUsage('ivshmem server', 'extended');
  command.action(async (argv: string[]) => {
    const log = openLogStream(process.stdout.fd);
    finish(
      await runServer(argv, {
        stdout: log,
        stderr: process.stderr,
        terminal: isatty(process.stdout.fd),
        program: 'ivshmem server',
        dialect: 'extended',
      }),
    );
    await log.close();
  });
}
