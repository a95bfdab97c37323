import { once } from 'node:events';
import { createLink, type Link, type LinkStatus, type Offload } from '@ivshmem/net';
import type { PciInterrupts, PortSource } from '@ivshmem/transport';
import { stateName } from '@ivshmem/transport/protocol';
import { type Command, Option } from 'commander';
import { abortOnEof, abortOnSignals, EXIT_OK, seconds, UsageError } from './exit.ts';
import { openPrinter } from './printer.ts';
import { ServiceStatus } from './service-status.ts';
import { addTapOptions, linkOptions, type TapOptions, tapLabel } from './tap-options.ts';

const DEFAULT_SOCKET = '/tmp/ivshmem_socket';

interface NetOptions extends TapOptions {
  socket?: string;
  pci?: string;
  irq?: PciInterrupts;
  wait: boolean;
  stats?: number;
  json: boolean;
  untilEof: boolean;
}

/** What `ivshmem net --json` prints, one object a line. `time` is in ms since 1970. */
export type NetEvent = { readonly time: number } & (
  | ({ readonly event: 'up' } & Link['info'])
  | ({ readonly event: 'state' } & ReturnType<typeof stateNames>)
  | { readonly event: 'log'; readonly text: string }
  | ({ readonly event: 'stats' } & ReturnType<Link['stats']>)
);

const EXAMPLES = `
Examples:
  A link on a host server, with an address of its own:
    ivshmem net --socket /run/ivshmem.sock --tap ivn0 --address 10.0.0.1/24
  Inside a network namespace, with large packets:
    ivshmem net --tap ivn0 --netns blue --mtu 65521 --address 10.0.0.2/24
  As a port of a bridge, for the shortest round trips at the price of more CPU time:
    ivshmem net --tap ivn0 --bridge br0 --busy-poll 100
  Inside a virtual machine that has an ivshmem v2 device:
    ivshmem net --pci auto --tap ivn0 --address 10.0.0.1/24
  For a program, with the counters every 5 s:
    ivshmem net --tap ivn0 --json --stats 5
`;

export function addNetCommand(program: Command, finish: (code: number) => void): void {
  const command = program
    .command('net')
    .description(
      'Links a TAP interface to a host server, or to the PCI device of a virtual machine: Ethernet over shared memory, protocol 0x0001. Runs until SIGINT, SIGTERM or SIGHUP; the interface is deleted then, unless it existed before.',
    )
    .option('-S, --socket <path>', `the host server's socket (default: "${DEFAULT_SOCKET}")`)
    .option(
      '--pci <address|auto>',
      'inside a virtual machine: its ivshmem v2 device instead of a host server',
    )
    .addOption(
      new Option('--irq <how>', 'how interrupts of the PCI device come; vfio needs an IOMMU').choices([
        'vfio',
        'poll',
      ]),
    );
  addTapOptions(command)
    .option('--wait', 'wait for the host server if it is not there yet, instead of failing', false)
    .option('--stats <seconds>', 'print the counters so often, 1 to 86400', seconds)
    .option('--json', 'print one JSON object a line', false)
    .option('--verbose', 'print stack traces of errors', false)
    .option('--until-eof', 'end with standard input, too: for programs that start this one', false)
    .addHelpText('after', EXAMPLES)
    .action(async (options: NetOptions) => finish(await runNet(options)));
}

async function runNet(options: NetOptions): Promise<number> {
  using signals = abortOnSignals();
  using eof = options.untilEof ? abortOnEof() : null;
  const stop = eof === null ? signals.signal : AbortSignal.any([signals.signal, eof.signal]);
  let tap = tapLabel(options);
  const lines = (event: NetEvent) => [`${tap}: ${linkEventText(event)}`];
  const service = new ServiceStatus();
  await using printer = openPrinter(options.json, lines);
  const print = (event: NetEvent) => {
    service.report('link', event.event, lines(event));
    printer.print(event);
  };
  const link = await connect(options, stop, (text) => print({ event: 'log', time: Date.now(), text }));
  if (link === null) return EXIT_OK;
  link.info$.subscribe((info) => {
    tap = info.tap;
    print({ event: 'up', time: Date.now(), ...info });
  });
  link.state$.subscribe((status) => print({ event: 'state', time: Date.now(), ...stateNames(status) }));
  link.log$.subscribe((text) => print({ event: 'log', time: Date.now(), text }));
  const printStats = () => print({ event: 'stats', time: Date.now(), ...link.stats() });
  const timer = options.stats ? setInterval(printStats, options.stats * 1000) : undefined;
  service.ready();
  try {
    await Promise.race([link.closed, stop.aborted || once(stop, 'abort')]);
  } finally {
    clearInterval(timer);
    service.stopping();
    await link.close();
  }
  const failure = await link.closed;
  if (failure !== null) throw failure;
  printStats();
  return EXIT_OK;
}

/** Null where a signal came first. */
async function connect(
  options: NetOptions,
  signal: AbortSignal,
  log: (text: string) => void,
): Promise<Link | null> {
  try {
    const { wait } = options;
    return await createLink({ port: portSource(options), wait, ...linkOptions(options) }, signal, log);
  } catch (error) {
    if (signal.aborted) return null;
    throw error;
  }
}

function portSource({ socket, pci, irq }: NetOptions): PortSource {
  if (pci === undefined) {
    if (irq !== undefined) throw new UsageError('--irq is for a PCI device: give --pci, too');
    return { type: 'server', socketPath: socket ?? DEFAULT_SOCKET };
  }
  if (socket !== undefined) throw new UsageError('--socket and --pci exclude each other: give one of them');
  return { type: 'pci', device: pci, ...(irq !== undefined && { interrupts: irq }) };
}

/** What a link has come to, with the states of the handshake by name. */
export function stateNames({ local, peer, carrier, offloads }: LinkStatus) {
  return { local: stateName(local), peer: stateName(peer), carrier, offloads };
}

/** Offloads in words. */
export function offloadText(offloads: readonly Offload[]): string {
  return offloads.length === 0 ? 'no offload' : `offload of ${offloads.join(', ')}`;
}

/** An event in words. */
export function linkEventText(event: NetEvent): string {
  switch (event.event) {
    case 'up':
      return `peer ${event.id}, MTU ${event.mtu}, sections of ${event.outputSectionSize} bytes, rings of ${event.queueLength}`;
    case 'state':
      return `${event.local}, peer ${event.peer}: ${event.carrier ? `link is up, ${offloadText(event.offloads)}` : 'link is down'}`;
    case 'log':
      return event.text;
    case 'stats': {
      const { event: _event, time: _time, ...counters } = event;
      return Object.entries(counters)
        .filter(([name, value]) => value > 0 || /^[tr]x/.test(name))
        .map(([name, value]) => `${name} ${value}`)
        .join(', ');
    }
  }
}
