import { readFileSync } from 'node:fs';
import { openOutput, printable } from '@ivshmem/linux/process';
import { Command } from 'commander';
import { EXIT_OK, reportError } from './exit.ts';
import { standardOutput } from './printer.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

/** A command as `ivshmem --help` lists it. Its module is loaded when the command is given: some take a while to load. */
interface CommandEntry {
  readonly summary: string;
  readonly takes: '[options]' | '[options...]';
  readonly load: () => Promise<(program: Command, finish: (code: number) => void) => void>;
}

const commands: Record<string, CommandEntry> = {
  server: {
    summary: 'run host servers',
    takes: '[options...]',
    load: async () => (await import('./server-command.ts')).addServerCommand,
  },
  peers: {
    summary: 'list who is connected to a host server',
    takes: '[options]',
    load: async () => (await import('./peers-command.ts')).addPeersCommand,
  },
  net: {
    summary: 'link a TAP interface to an ivshmem v2 host server or PCI device',
    takes: '[options]',
    load: async () => (await import('./net-command.ts')).addNetCommand,
  },
  device: {
    summary: 'give virtual machines an ivshmem v2 device on a host server',
    takes: '[options]',
    load: async () => (await import('./device-command.ts')).addDeviceCommand,
  },
  vm: {
    summary: 'link a virtual machine to a TAP interface',
    takes: '[options]',
    load: async () => (await import('./vm-command.ts')).addVmCommand,
  },
  demo: {
    summary: 'link two network namespaces and measure',
    takes: '[options]',
    load: async () => (await import('./demo-command.ts')).addDemoCommand,
  },
};

/** Runs the command line; returns the exit code: 0, 1 for a failure, 2 for a mistake in the arguments. */
export async function main(argv: readonly string[]): Promise<number> {
  await using stderr = openOutput(2);
  let code = EXIT_OK;
  const finish = (result: number) => {
    code = result;
  };
  const program = new Command('ivshmem')
    .description('ivshmem v2 for Linux: Ethernet between machines on one host, through shared memory.')
    .version(version)
    .option('--verbose', 'print stack traces of errors', false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => standardOutput().write(text),
      writeErr: (text) => stderr.write(text),
      outputError: (text, write) => write(oneLine(text)),
    })
    .addHelpText('after', EXAMPLES)
    .enablePositionalOptions();
  const given = argv.find((argument) => !argument.startsWith('-') && argument !== 'help');
  for (const [name, { summary, takes, load }] of Object.entries(commands)) {
    if (name === given) (await load())(program, finish);
    else program.command(name).summary(summary).argument(takes);
  }
  try {
    await program.parseAsync(argv as string[], { from: 'user' });
    return code;
  } catch (error) {
    return reportError(
      error,
      argv.some((argument) => argument === '-v' || argument === '--verbose'),
      stderr,
    );
  }
}

/** commander's `error: …`, perhaps with a suggestion on a line of its own. */
function oneLine(text: string): string {
  const message = text
    .trim()
    .replace(/^error: /, '')
    .replace(/\s*\n\s*/g, ' ');
  return `${printable(`ivshmem: ${message}`)} (try --help)\n`;
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
