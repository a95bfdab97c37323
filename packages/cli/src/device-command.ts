import { checkDeviceOptions, createDevice, type Device } from '@ivshmem/device';
import type { Command } from 'commander';
import { type DeviceEvent, deviceEventLines, followDevice } from './device-events.ts';
import { addDeviceOptions, type DeviceCommandOptions, deviceOptions } from './device-options.ts';
import { abortOnEof, abortOnSignals, collect, EXIT_OK, seconds, UsageError } from './exit.ts';
import { openPrinter } from './printer.ts';
import { ServiceStatus } from './service-status.ts';
import { closeAll, untilEnded } from './until-ended.ts';

interface Options extends DeviceCommandOptions {
  socket: string;
  vfioUser: string[];
  wait: boolean;
  stats?: number;
  json: boolean;
  verbose: boolean;
  untilEof: boolean;
}

const EXAMPLES = `
Examples:
  A device for one VM, on a host server that runs already:
    ivshmem device --socket /run/ivshmem.sock --vfio-user /run/vm1.sock
  Devices for two VMs that run as members of kvm; neither can write to what the other one sends:
    ivshmem device -S /run/ivshmem.sock --vfio-user /run/vm1.sock --vfio-user /run/vm2.sock --isolate --mode 660 --group kvm
  For a program, with the counters every 5 s:
    ivshmem device --vfio-user /run/vm1.sock --json --stats 5
`;

export function addDeviceCommand(program: Command, finish: (code: number) => void): void {
  const command = program
    .command('device')
    .description(
      'Offers PCI devices to stock QEMU (10.1 or later, vfio-user-pci): each is a peer of the host server, and belongs to the VM that connects to its socket. Prints the option to start QEMU with. Runs until SIGINT or SIGTERM. A VM can be restarted meanwhile; the command cannot, without restarting the VMs.',
    )
    .option('-S, --socket <path>', "the host server's socket", '/tmp/ivshmem_socket')
    .option('--vfio-user <path>', 'socket to wait for a VM at (may be repeated)', collect, []);
  addDeviceOptions(command)
    .option('--wait', 'wait for the host server if it is not there yet, instead of failing', false)
    .option('--stats <seconds>', 'print the counters so often, 1 to 86400', seconds)
    .option('--json', 'print one JSON object a line', false)
    .option('-v, --verbose', 'say how memory is protected; print stack traces of errors', false)
    .option('--until-eof', 'end with standard input, too: for programs that start this one', false)
    .addHelpText('after', EXAMPLES)
    .action(async (options: Options) => finish(await runDevices(options)));
}

async function runDevices(options: Options): Promise<number> {
  if (options.vfioUser.length === 0)
    throw new UsageError('--vfio-user is missing: say where a VM is to connect');
  // All of them before the first one is up.
  for (const [at, vfioUser] of options.vfioUser.entries()) {
    checkDeviceOptions({ socketPath: options.socket, vfioUser, ...deviceOptions(options) });
    if (options.vfioUser.indexOf(vfioUser) < at)
      throw new UsageError(`--vfio-user ${vfioUser}: is given twice; each VM needs a socket of its own`);
  }
  using signals = abortOnSignals();
  using eof = options.untilEof ? abortOnEof() : null;
  const stop = eof === null ? signals.signal : AbortSignal.any([signals.signal, eof.signal]);
  const lines = (event: DeviceEvent) => deviceEventLines(event, options.verbose);
  const service = new ServiceStatus();
  await using printer = openPrinter(options.json, lines);
  const print = (event: DeviceEvent) => {
    service.report(event.vfioUser, event.event, lines(event));
    printer.print(event);
  };
  const devices: Device[] = [];
  const printStats = () => {
    for (const [i, device] of devices.entries()) {
      const vfioUser = options.vfioUser[i]!;
      print({ event: 'stats', time: Date.now(), vfioUser, ...device.stats() });
    }
  };
  try {
    // One after the other, so that their IDs are in the order of the options.
    for (const vfioUser of options.vfioUser) {
      const device = await createDevice(
        { socketPath: options.socket, vfioUser, wait: options.wait, ...deviceOptions(options) },
        stop,
        (text) => print({ event: 'log', time: Date.now(), vfioUser, text }),
      );
      devices.push(device);
      followDevice(device, { vfioUser, isolate: options.isolate }, print);
    }
  } catch (error) {
    await closeAll(devices);
    if (stop.aborted) return EXIT_OK;
    throw error;
  }
  const timer = options.stats ? setInterval(printStats, options.stats * 1000) : undefined;
  service.ready();
  try {
    await untilEnded(devices, stop, () => service.stopping());
  } finally {
    clearInterval(timer);
  }
  printStats();
  return EXIT_OK;
}
