import { readFileSync } from 'node:fs';
import { Command, CommanderError, type OutputConfiguration } from 'commander';
import { EXIT_OK } from './exit.ts';
import { standardOutput } from './output/standard-output.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

/** As in packages/linux, which is not loaded for a command that does not need it. */
const STANDBY = 'IVSHMEM_STANDBY';

/** Runs a command; resolves with the exit code. */
export interface RunCommand {
  (): Promise<number>;
  /** Loads in advance what the command would load later. */
  readonly preload?: () => Promise<void>;
}

/** Loads what a command needs to run. */
export type LoadCommand = () => Promise<RunCommand>;

/** Adds a command to the program. Once its options are parsed, it calls `run`. */
type AddCommand = (program: Command, run: (load: LoadCommand) => void) => void;

/**
 * A command as `ivshmem --help` lists it. The module with its options is loaded if the command is given, everything else
 * only if it runs: an emulated guest takes seconds to load all of it.
 */
interface CommandEntry {
  readonly summary: string;
  readonly takes:
    | '[options]'
    | '[options...]'
    | '[options] [link]'
    | '[options] [link...]'
    | '[options] <command...>'
    | '<subject> [options]';
  readonly load: () => Promise<AddCommand>;
}

export const commands: Readonly<Record<string, CommandEntry>> = {
  server: {
    summary: 'run host servers: each provides its peers with shared memory and doorbells',
    takes: '[options...]',
    load: async () => (await import('./commands/server.ts')).addServerCommand,
  },
  peers: {
    summary: 'list the peers that are connected to a host server',
    takes: '[options]',
    load: async () => (await import('./commands/peers.ts')).addPeersCommand,
  },
  status: {
    summary: 'show all links and the state of their parts, in all running processes',
    takes: '[options] [link...]',
    load: async () => (await import('./commands/status.ts')).addStatusCommand,
  },
  top: {
    summary: 'show the live rates of all links: frames, drops, doorbells, wake-ups',
    takes: '[options]',
    load: async () => (await import('./commands/top.ts')).addTopCommand,
  },
  capture: {
    summary: 'write the frames that cross a link into a pcapng file, also between two VMs',
    takes: '[options] [link]',
    load: async () => (await import('./commands/capture.ts')).addCaptureCommand,
  },
  net: {
    summary: 'connect a TAP interface to a host server or, inside a VM, to its device',
    takes: '[options]',
    load: async () => (await import('./commands/net.ts')).addNetCommand,
  },
  device: {
    summary: 'provide VMs with ivshmem v2 devices, as peers of a host server',
    takes: '[options]',
    load: async () => (await import('./commands/device.ts')).addDeviceCommand,
  },
  vm: {
    summary: 'connect a VM to a TAP interface of the host: server, device and net in one',
    takes: '[options]',
    load: async () => (await import('./commands/vm.ts')).addVmCommand,
  },
  supervise: {
    summary: 'keep the descriptors of a program while it is restarted, without systemd',
    takes: '[options] <command...>',
    load: async () => (await import('./commands/supervise.ts')).addSuperviseCommand,
  },
  doctor: {
    summary: 'check whether links work on this machine, and say what to change',
    takes: '[options]',
    load: async () => (await import('./commands/doctor.ts')).addDoctorCommand,
  },
  check: {
    summary: 'check an implementation of others: what does not conform, and why',
    takes: '<subject> [options]',
    load: async () => (await import('./commands/check.ts')).addCheckCommand,
  },
  demo: {
    summary: 'connect two network namespaces and measure, to see that it works here',
    takes: '[options]',
    load: async () => (await import('./commands/demo.ts')).addDemoCommand,
  },
};

/** The program, without its commands. */
export function createProgram(output: OutputConfiguration): Command {
  return new Command('ivshmem')
    .description(
      'ivshmem v2 for Linux: Ethernet between virtual machines, containers and network namespaces of one host, through shared memory.',
    )
    .version(version)
    .option('--verbose', 'print stack traces of errors')
    .exitOverride()
    .configureOutput(output)
    .addHelpText('after', EXAMPLES)
    .enablePositionalOptions();
}

/** Runs the command line; returns the exit code: 0, 1 for a failure, 2 for a mistake in the arguments. */
export async function main(argv: readonly string[]): Promise<number> {
  let loadCommand: LoadCommand | undefined;
  const run = (load: LoadCommand) => {
    loadCommand = load;
  };
  let complaint = '';
  const program = createProgram({
    writeOut: (text) => standardOutput().write(text),
    writeErr: (text) => {
      complaint += text;
    },
  });
  const given = argv.find((argument) => !argument.startsWith('-') && argument !== 'help');
  for (const [name, { summary, takes, load }] of Object.entries(commands)) {
    if (name === given) (await load())(program, run);
    else program.command(name).summary(summary).arguments(takes);
  }
  try {
    program.parse(argv as string[], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // --help or --version.
    if (error.exitCode === 0) return EXIT_OK;
    const { reportCommandLine } = await import('./error-report.ts');
    return await reportCommandLine(complaint);
  }
  // Before anything runs: a command that runs out of descriptors could not load it.
  const { reportError } = await import('./error-report.ts');
  const runCommand = await loadCommand!();
  if (process.env[STANDBY] !== undefined) await waitForHandOver(runCommand);
  try {
    return await runCommand();
  } catch (error) {
    const isVerbose = argv.some((argument) => argument === '-v' || argument === '--verbose');
    return await reportError(error, isVerbose);
  }
}

/** This process is to continue for another one when that has ended: see `ivshmem supervise --standby`. */
async function waitForHandOver({ preload }: RunCommand): Promise<void> {
  const fd = Number(process.env[STANDBY]);
  delete process.env[STANDBY];
  await preload?.();
  const { standBy } = await import('@ivshmem/linux/process');
  await standBy(fd);
}

const EXAMPLES = `
Which command to use:
  host to VM                      vm on the host
  VM to VM                        server, and device with a socket for each VM
  namespace or container to VM    server, device for the VM, and net
  namespaces or containers        server, and net for each of them
  inside a VM                     net --pci auto, unless its kernel has the driver ivshmem-net
  first look                      demo
  something does not work         doctor

Examples:
  Check that it works on this machine:
    ivshmem demo
  A host server, and a link between two interfaces:
    ivshmem server -F -S /run/ivshmem.sock -l 4M -o 1M -V 2 -P 1
    ivshmem net --socket /run/ivshmem.sock --tap ivn0 --address 10.0.0.1/24
    ivshmem net --socket /run/ivshmem.sock --tap ivn1 --netns blue --address 10.0.0.2/24
  A link between a virtual machine and an interface of the host:
    ivshmem vm --vfio-user /run/vm1.sock --tap ivn0 --address 10.0.0.1/24

Exit codes: 0 success, 1 failure, 2 mistake in the arguments.
`;
