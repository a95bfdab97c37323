import type { Command } from 'commander';
import { addDeviceOptions, type DeviceOptions } from '../options/device.ts';
import { addRunningOptions, type RunningOptions } from '../options/running.ts';
import { collect } from '../options/values.ts';
import type { LoadCommand } from '../program.ts';

export interface DeviceCommandOptions extends DeviceOptions, RunningOptions {
  socket: string;
  vfioUser?: string[];
  wait?: boolean;
  verbose?: boolean;
}

const EXAMPLES = `
Examples:
  A device for one VM, on a host server that is running:
    ivshmem device --socket /run/ivshmem.sock --vfio-user /run/vm1.sock
  Devices for two VMs that run as members of kvm and cannot write to each other's section:
    ivshmem device -S /run/ivshmem.sock --vfio-user /run/vm1.sock --vfio-user /run/vm2.sock --isolate --mode 660 --group kvm
  For a program, with the counters every 5 s:
    ivshmem device --vfio-user /run/vm1.sock --json --stats 5
`;

export function addDeviceCommand(program: Command, run: (load: LoadCommand) => void): void {
  const command = program
    .command('device')
    .description(
      'Provides ivshmem v2 PCI devices for stock QEMU (10.1 or later, vfio-user-pci). Each device is a peer of the host server, and has a socket of its own for one VM. Prints the QEMU option for each. Runs until SIGINT, SIGTERM or SIGHUP. A VM may restart at any time. If this command restarts, its VMs must restart, too, unless it has a descriptor store (systemd, `ivshmem supervise`): then they do not notice it.',
    )
    .option('-S, --socket <path>', 'socket of the host server', '/tmp/ivshmem_socket')
    .option(
      '--vfio-user <path>',
      'socket where a VM connects (may be repeated: one device for each)',
      collect,
    );
  addRunningOptions(
    addDeviceOptions(command).option(
      '--wait',
      'wait for the host server if it has not started yet, instead of failing',
    ),
  )
    .option('-v, --verbose', 'print how memory is protected, and stack traces of errors')
    .addHelpText('after', EXAMPLES)
    .action((options: DeviceCommandOptions) =>
      run(async () => {
        const { runDevices } = await import('./run-device.ts');
        return () => runDevices(options);
      }),
    );
}
