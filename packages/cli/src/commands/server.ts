import { isatty } from 'node:tty';
import { runServer, serverUsage } from '@ivshmem/host-server/service';
import { openOutput } from '@ivshmem/linux/process';
import type { Command } from 'commander';
import type { LoadCommand } from '../program.ts';

/** `ivshmem server`: its options are those of the original host server and more, all defined in packages/host-server. */
export function addServerCommand(program: Command, run: (load: LoadCommand) => void): void {
  const command = program
    .command('server')
    .helpOption(false)
    .allowUnknownOption()
    .argument('[options...]')
    .passThroughOptions();
  command.helpInformation = () => serverUsage('ivshmem server', 'extended');
  command.action((argv: string[]) => run(async () => () => runHere(argv)));
}

async function runHere(argv: readonly string[]): Promise<number> {
  await using stdout = openOutput(1);
  await using stderr = openOutput(2);
  const program = 'ivshmem server';
  return await runServer(argv, { stdout, stderr, terminal: isatty(1), program, dialect: 'extended' });
}
