import type { PciInterrupts } from '@ivshmem/transport';
import { type Command, Option } from 'commander';
import { addInterfaceOptions, type InterfaceOptions } from '../options/interface.ts';
import { addRunningOptions, type RunningOptions } from '../options/running.ts';
import type { LoadCommand } from '../program.ts';

export const DEFAULT_SOCKET = '/tmp/ivshmem_socket';

export interface NetOptions extends InterfaceOptions, RunningOptions {
  socket?: string;
  pci?: string;
  irq?: PciInterrupts;
  wait?: boolean;
}

const EXAMPLES = `
Examples:
  A link on a host server, with an address of its own:
    ivshmem net --socket /run/ivshmem.sock --tap ivn0 --address 10.0.0.1/24
  Inside a network namespace, with large packets:
    ivshmem net --tap ivn0 --netns blue --mtu 65521 --address 10.0.0.2/24
  As a port of a bridge, with shorter round trips at the cost of more CPU time:
    ivshmem net --tap ivn0 --bridge br0 --busy-poll 100
  Inside a virtual machine that has an ivshmem v2 device:
    ivshmem net --pci auto --tap ivn0 --address 10.0.0.1/24
  For a program, with the counters every 5 s:
    ivshmem net --tap ivn0 --json --stats 5
`;

export function addNetCommand(program: Command, run: (load: LoadCommand) => void): void {
  const command = program
    .command('net')
    .description(
      'Connects a TAP interface to a host server or, inside a virtual machine, to its ivshmem v2 PCI device: Ethernet over shared memory, protocol 0x0001. Runs until SIGINT, SIGTERM or SIGHUP, then deletes the interface unless it existed before.',
    )
    .option('-S, --socket <path>', `socket of the host server (default: "${DEFAULT_SOCKET}")`)
    .option(
      '--pci <address|auto>',
      'use this PCI device instead of a host server, inside a virtual machine; auto: the only one of protocol 0x0001',
    )
    .addOption(
      new Option(
        '--irq <how>',
        'how the PCI device interrupts: vfio needs an IOMMU, poll works without interrupts (default: vfio if an IOMMU serves the device, otherwise poll)',
      ).choices(['vfio', 'poll']),
    );
  addRunningOptions(
    addInterfaceOptions(command).option(
      '--wait',
      'wait for the host server if it has not started yet, instead of failing',
    ),
  )
    .option('--verbose', 'print stack traces of errors')
    .addHelpText('after', EXAMPLES)
    .action((options: NetOptions) =>
      run(async () => {
        const { runNet, preloadLink } = await import('./run-net.ts');
        return Object.assign(() => runNet(options), { preload: preloadLink });
      }),
    );
}
