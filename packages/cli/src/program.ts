import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addDemoCommand } from './demo-command.ts';
import { addDeviceCommand } from './device-command.ts';
import { EXIT_OK, reportError } from './exit.ts';
import { addNetCommand } from './net-command.ts';
import { addPeersCommand } from './peers-command.ts';
import { addServerCommand } from './server-command.ts';
import { addVmCommand } from './vm-command.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

/** Runs the command line; returns the exit code: 0, 1 for a failure, 2 for a mistake in the arguments. */
export async function main(argv: readonly string[]): Promise<number> {
  let code = EXIT_OK;
  const finish = (result: number) => {
    code = result;
  };
  const program = new Command('ivshmem')
    .description('ivshmem v2 for Linux: Ethernet between machines on one host, through shared memory.')
    .version(version)
    .option('--verbose', 'print stack traces of errors', false)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(oneLine(text)) })
    .addHelpText('after', EXAMPLES)
    .enablePositionalOptions();
  addServerCommand(program, finish);
  addPeersCommand(program, finish);
  addNetCommand(program, finish);
  addDeviceCommand(program, finish);
  addVmCommand(program, finish);
  addDemoCommand(program, finish);
  try {
    await program.parseAsync(argv as string[], { from: 'user' });
    return code;
  } catch (error) {
    return reportError(
      error,
      argv.some((argument) => argument === '-v' || argument === '--verbose'),
    );
  }
}

/** commander's `error: …`, perhaps with a suggestion on a line of its own. */
function oneLine(text: string): string {
  const message = text
    .trim()
    .replace(/^error: /, '')
    .replace(/\s*\n\s*/g, ' ');
  return `ivshmem: ${message} (try --help)\n`;
}

const EXAMPLES = `
Examples:
  Everything at once, to see that it works here:
    ivshmem demo
  A host server, and two links on it:
    ivshmem server -F -S /run/ivshmem.sock -l 4M -o 1M -V 2 -P 1
    ivshmem net --socket /run/ivshmem.sock --tap ivn0 --address 10.0.0.1/24
    ivshmem net --socket /run/ivshmem.sock --tap ivn1 --netns blue --address 10.0.0.2/24
  A virtual machine, and an interface of the host that is linked to it:
    ivshmem vm --vfio-user /run/vm1.sock --tap ivn0 --address 10.0.0.1/24

Exit codes: 0 success, 1 failure, 2 mistake in the arguments.
`;
