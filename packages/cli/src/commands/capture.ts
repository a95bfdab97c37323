import { type Command, Option } from 'commander';
import { size } from '../options/values.ts';
import type { LoadCommand } from '../program.ts';

export interface CaptureOptions {
  write: string;
  snapshotLength?: number;
  /** Options that Wireshark gives to its extcap programs. */
  extcapInterfaces?: boolean;
  extcapVersion?: string | boolean;
  extcapInterface?: string;
  extcapDlts?: boolean;
  extcapConfig?: boolean;
  extcapCaptureFilter?: string;
  capture?: boolean;
  fifo?: string;
}

const EXAMPLES = `
Examples:
  Into a file, until Ctrl-C:
    ivshmem capture ivn0 -w frames.pcapng
  Between two VMs, live:
    ivshmem capture /run/ivshmem/blue.sock | wireshark -k -i -
  As text, headers only:
    ivshmem capture blue -s 128 | tshark -r -
`;

export function addCaptureCommand(program: Command, run: (load: LoadCommand) => void): void {
  const command = program
    .command('capture')
    .description(
      'Captures the frames that cross a link, in pcapng format, until SIGINT, SIGTERM or SIGHUP, or until its reader ends. Works for all links whose host server runs, also between two VMs. Reads the shared memory and takes no part in the link: it loses frames rather than slow the link down, and counts them. Needs the user that runs the host server, or root.',
    )
    .argument(
      '[link]',
      'the link: its name, an interface, a socket of a device, or the socket of its host server',
    )
    .option('-w, --write <file>', 'file to write; "-" is standard output', '-')
    .option('-s, --snapshot-length <bytes>', 'capture only the beginning of each frame', size);
  for (const [flags, text] of EXTCAP) command.addOption(new Option(flags, text).hideHelp());
  command.addHelpText('after', EXAMPLES).action((link: string | undefined, options: CaptureOptions) =>
    run(async () => {
      const { capture } = await import('./run-capture.ts');
      return () => capture(link, options);
    }),
  );
}

/** Source: extcap(4). */
const EXTCAP = [
  ['--extcap-interfaces', 'list the links as interfaces'],
  ['--extcap-version [version]', 'version of Wireshark'],
  ['--extcap-interface <name>', 'the link'],
  ['--extcap-dlts', 'list the link types of the interface'],
  ['--extcap-config', 'list the options of the interface'],
  ['--extcap-capture-filter <filter>', 'not supported'],
  ['--capture', 'capture'],
  ['--fifo <path>', 'file to write'],
] as const;
