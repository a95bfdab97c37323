import { type Command, Option } from 'commander';
import { addDeviceOptions, type DeviceOptions } from '../options/device.ts';
import { addInterfaceOptions, type InterfaceOptions } from '../options/interface.ts';
import { addRunningOptions, type RunningOptions } from '../options/running.ts';
import { size } from '../options/values.ts';
import type { LoadCommand } from '../program.ts';

export interface VmOptions extends DeviceOptions, InterfaceOptions, RunningOptions {
  vfioUser: string;
  sectionSize: number;
  verbose?: boolean;
}

const DEFAULT_SECTION_SIZE = 2 ** 20;

const EXAMPLES = `
Examples:
  A VM, and an interface of the host that is connected to it:
    ivshmem vm --vfio-user /run/vm1.sock --tap ivn0 --address 10.0.0.1/24
  A VM on a bridge of the host, for a QEMU that runs as a member of kvm:
    ivshmem vm --vfio-user /run/vm1.sock --tap ivn0 --bridge br0 --mode 660 --group kvm
`;

export function addVmCommand(program: Command, run: (load: LoadCommand) => void): void {
  const command = program
    .command('vm')
    .description(
      'Connects a VM to a TAP interface of the host. One process runs all that is needed: a host server, an ivshmem v2 device for stock QEMU (10.1 or later) as peer 0, and the interface as peer 1. Prints the QEMU option for the device. Runs until SIGINT, SIGTERM or SIGHUP.',
    )
    .requiredOption('--vfio-user <path>', 'socket where the VM connects');
  const withOptions = addDeviceOptions(addInterfaceOptions(command)).addOption(
    new Option('--section-size <size>', 'size of each output section, a multiple of 4K')
      .argParser(size)
      .default(DEFAULT_SECTION_SIZE, '1M'),
  );
  addRunningOptions(withOptions)
    .option('-v, --verbose', 'print how memory is protected, and stack traces of errors')
    .addHelpText('after', EXAMPLES)
    .action((options: VmOptions) =>
      run(async () => {
        const { runVm } = await import('./run-vm.ts');
        return () => runVm(options);
      }),
    );
}
