import { rmSync } from 'node:fs';
import { checkDeviceOptions, createDevice } from '@ivshmem/device';
import { createHostServer } from '@ivshmem/host-server';
import { parseSize } from '@ivshmem/host-server/service';
import { PAGE_SIZE } from '@ivshmem/linux/memory';
import { checkLinkOptions, createLink } from '@ivshmem/net';
import { LayoutError, ringLayout } from '@ivshmem/transport/protocol';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type DeviceEvent, deviceEventLines, followDevice } from './device-events.ts';
import { addDeviceOptions, type DeviceCommandOptions, deviceOptions } from './device-options.ts';
import { abortOnEof, abortOnSignals, EXIT_OK, seconds, UsageError } from './exit.ts';
import { linkEventText, type NetEvent, stateNames } from './net-command.ts';
import { openPrinter } from './printer.ts';
import { ServiceStatus } from './service-status.ts';
import { addTapOptions, linkOptions, type TapOptions, tapLabel } from './tap-options.ts';
import { closeAll, type Running, untilEnded } from './until-ended.ts';

interface Options extends DeviceCommandOptions, TapOptions {
  vfioUser: string;
  sectionSize: number;
  stats?: number;
  json: boolean;
  verbose: boolean;
  untilEof: boolean;
}

/** What `ivshmem vm --json` prints, one object a line. */
export type VmEvent = ({ readonly part: 'device' } & DeviceEvent) | ({ readonly part: 'link' } & NetEvent);

/** What the socket of the host server is called while device and link connect: that of the VM, with this behind it. */
const SERVER_SUFFIX = '.server';
/** Source: specification, "Protocols": virtual peer-to-peer Ethernet. */
const ETHERNET = 0x0001;
const DEFAULT_SECTION_SIZE = 2 ** 20;

const EXAMPLES = `
Examples:
  A VM, and an interface of the host that is linked to it:
    ivshmem vm --vfio-user /run/vm1.sock --tap ivn0 --address 10.0.0.1/24
  A VM on a bridge of the host, for a QEMU that runs as a member of kvm:
    ivshmem vm --vfio-user /run/vm1.sock --tap ivn0 --bridge br0 --mode 660 --group kvm
`;

export function addVmCommand(program: Command, finish: (code: number) => void): void {
  const command = program
    .command('vm')
    .description(
      'All that it takes to link a VM to the host, in one process: a host server, an ivshmem v2 device for stock QEMU (10.1 or later) as peer 0, and a TAP interface as peer 1. Prints the option to start QEMU with. Runs until SIGINT or SIGTERM.',
    )
    .requiredOption('--vfio-user <path>', 'socket to wait for the VM at');
  addDeviceOptions(addTapOptions(command))
    .addOption(
      new Option('--section-size <size>', 'size of each output section, a multiple of 4K')
        .argParser(size)
        .default(DEFAULT_SECTION_SIZE, '1M'),
    )
    .option('--stats <seconds>', 'print the counters so often, 1 to 86400', seconds)
    .option('--json', 'print one JSON object a line', false)
    .option('-v, --verbose', 'say how memory is protected; print stack traces of errors', false)
    .option('--until-eof', 'end with standard input, too: for programs that start this one', false)
    .addHelpText('after', EXAMPLES)
    .action(async (options: Options) => finish(await runVm(options)));
}

function size(text: string): number {
  const bytes = parseSize(text);
  if (bytes === null) throw new InvalidArgumentError('It must be a size, such as 512K or 4M.');
  return bytes;
}

async function runVm(options: Options): Promise<number> {
  const { vfioUser, isolate, sectionSize, mtu } = options;
  let tap = tapLabel(options);
  const socketPath = `${vfioUser}${SERVER_SUFFIX}`;
  const ofDevice = { socketPath, vfioUser, ...deviceOptions(options) };
  const ofLink = { port: { type: 'server', socketPath }, ...linkOptions(options) } as const;
  checkDeviceOptions(ofDevice);
  checkLinkOptions(ofLink);
  checkSections(sectionSize, mtu);
  using signals = abortOnSignals();
  using eof = options.untilEof ? abortOnEof() : null;
  const stop = eof === null ? signals.signal : AbortSignal.any([signals.signal, eof.signal]);
  const lines = (event: VmEvent) =>
    event.part === 'link' ? [`${tap}: ${linkEventText(event)}`] : deviceEventLines(event, options.verbose);
  const service = new ServiceStatus();
  await using printer = openPrinter(options.json, lines);
  const print = (event: VmEvent) => {
    service.report(event.part, event.event, lines(event));
    printer.print(event);
  };
  const running: Running[] = [];
  let printStats = () => {};
  try {
    const { server, hide } = startServer(socketPath, sectionSize);
    running.push(server);
    const device = await createDevice(ofDevice, stop);
    running.push(device);
    followDevice(device, { vfioUser, isolate }, (event) => print({ part: 'device', ...event }));
    const link = await createLink(ofLink, stop);
    running.push(link);
    hide();
    const head = (): { part: 'link'; time: number } => ({ part: 'link', time: Date.now() });
    link.info$.subscribe((info) => {
      tap = info.tap;
      print({ event: 'up', ...head(), ...info });
    });
    link.state$.subscribe((status) => print({ event: 'state', ...head(), ...stateNames(status) }));
    link.log$.subscribe((text) => print({ event: 'log', ...head(), text }));
    printStats = () => {
      print({ event: 'stats', part: 'device', time: Date.now(), vfioUser, ...device.stats() });
      print({ event: 'stats', ...head(), ...link.stats() });
    };
  } catch (error) {
    await closeAll(running);
    if (stop.aborted) return EXIT_OK;
    throw error;
  }
  const timer = options.stats ? setInterval(printStats, options.stats * 1000) : undefined;
  service.ready();
  try {
    await untilEnded(running, stop, () => service.stopping());
  } finally {
    clearInterval(timer);
  }
  printStats();
  return EXIT_OK;
}

/** Throws UsageError for output sections that cannot be, or that the MTU does not fit. */
function checkSections(size: number, mtu: number | undefined): void {
  if (size % PAGE_SIZE !== 0) {
    throw new UsageError(`--section-size ${size}: must be a multiple of ${PAGE_SIZE}, the page size`);
  }
  try {
    const { maxMtu } = ringLayout(size);
    if (mtu === undefined || mtu <= maxMtu) return;
    throw new UsageError(`--mtu ${mtu}: output sections of ${size} bytes allow ${maxMtu} at most`);
  } catch (error) {
    if (error instanceof LayoutError) throw new UsageError(`--section-size ${size}: ${error.message}`);
    throw error;
  }
}

/**
 * A host server for two peers, at a socket that only this user can reach. `hide` removes the socket's file once both have
 * connected; a process that is killed before leaves it to the next one with the same path, which takes it over.
 */
function startServer(socketPath: string, outputSectionSize: number): { server: Running; hide: () => void } {
  const server = createHostServer({
    socketPath,
    // Rounded up to a power of two; what the sections leave is the read/write section, which Ethernet has no use for.
    size: 4096 + 2 * outputSectionSize,
    outputSectionSize,
    maxPeers: 2,
    vectors: 2,
    protocol: ETHERNET,
  });
  const hide = () => rmSync(socketPath, { force: true });
  process.once('exit', hide);
  return {
    hide() {
      process.off('exit', hide);
      hide();
    },
    server: {
      closed: server.closed,
      async close() {
        process.off('exit', hide);
        server.close();
      },
    },
  };
}
