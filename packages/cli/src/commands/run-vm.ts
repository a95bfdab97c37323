import { rmSync } from 'node:fs';
import { checkDeviceOptions, createDevice, qemuOption } from '@ivshmem/device';
import {
  createHostServer,
  type HostServer,
  type HostServerOptions,
  handleObserve,
  serverReport,
} from '@ivshmem/host-server';
import { OptionError, SystemCallError } from '@ivshmem/linux';
import { PAGE_SIZE } from '@ivshmem/linux/memory';
import type { ServerReport } from '@ivshmem/monitor';
import { checkLinkOptions, createLink } from '@ivshmem/net';
import { LayoutError, ringLayout } from '@ivshmem/transport/protocol';
import { interfaceLabel } from '../options/interface.ts';
import { deviceOptions, linkOptions } from '../options/library-options.ts';
import { type DeviceEvent, deviceLines, deviceStats, followDevice } from '../output/device-events.ts';
import { followLink, type LinkEvent, linkLines, linkStats } from '../output/link-events.ts';
import { deviceReporter, interfaceReporter } from '../output/part-reports.ts';
import { type Running, runUntilStopped } from '../running-command.ts';
import type { VmOptions } from './vm.ts';

/** What `ivshmem vm --json` prints, one object per line. */
type VmEvent = ({ readonly part: 'device' } & DeviceEvent) | ({ readonly part: 'link' } & LinkEvent);

/** The socket of the host server while device and link connect to it. */
const serverPath = (vfioUser: string) => `${vfioUser}.server`;
/** Source: specification, "Protocols": virtual peer-to-peer Ethernet. */
const ETHERNET = 0x0001;

/** Runs a host server with a device and a link. */
export async function runVm(options: VmOptions): Promise<number> {
  const { vfioUser, isolate = false, sectionSize, mtu, verbose = false } = options;
  const socketPath = serverPath(vfioUser);
  const ofDevice = { socketPath, vfioUser, ...deviceOptions(options) };
  const ofLink = { port: { type: 'server', socketPath }, ...linkOptions(options) } as const;
  checkDeviceOptions(ofDevice);
  checkLinkOptions(ofLink);
  checkSections(sectionSize, mtu);
  const linesOfLink = linkLines(interfaceLabel(options));
  const text = {
    partOf: ({ part }: VmEvent) => part,
    linesOf: (event: VmEvent) => (event.part === 'link' ? linesOfLink(event) : deviceLines(event, verbose)),
  };
  return await runUntilStopped<VmEvent>('vm', options, text, async ({ stop, print, add, control }) => {
    const { server, hide, report, observed } = startServer(vfioUser, sectionSize);
    if (control !== undefined) handleObserve(control, () => [observed]);
    add(server, undefined, report);
    const device = await createDevice(ofDevice, stop);
    const place = { link: vfioUser, netns: options.netns };
    const reportDevice = deviceReporter(device, ofDevice, place);
    add(device, () => ({ part: 'device', ...deviceStats(device, vfioUser) }), reportDevice);
    const label = { vfioUser, isolate, qemu: qemuOption(vfioUser) };
    followDevice(device, label, (event) => print({ part: 'device', ...event }));
    const link = await createLink(ofLink, stop);
    const reportLink = interfaceReporter(link, ofLink.port, place);
    add(link, () => ({ part: 'link', ...linkStats(link) }), reportLink);
    hide();
    followLink(link, (event) => print({ part: 'link', ...event }));
  });
}

/** Throws OptionError if output sections of this size are not possible, or too small for the MTU. */
function checkSections(bytes: number, mtu: number | undefined): void {
  if (bytes % PAGE_SIZE !== 0) {
    throw new OptionError(
      '--section-size',
      `--section-size ${bytes}: must be a multiple of ${PAGE_SIZE}, the page size`,
    );
  }
  try {
    const { maxMtu } = ringLayout(bytes);
    if (mtu === undefined || mtu <= maxMtu) return;
    throw new OptionError('--mtu', `--mtu ${mtu}: output sections of ${bytes} bytes allow ${maxMtu} at most`);
  } catch (error) {
    if (error instanceof LayoutError)
      throw new OptionError('--section-size', `--section-size ${bytes}: ${error.message}`);
    throw error;
  }
}

/**
 * A host server for two peers, at a socket that only this user can reach. `hide` removes the socket's file once both have
 * connected. A process that is killed before leaves the file; the next server at this path takes it over.
 */
function startServer(
  vfioUser: string,
  outputSectionSize: number,
): { server: Running; hide: () => void; report: () => ServerReport; observed: HostServer } {
  const socketPath = serverPath(vfioUser);
  const server = createServer(vfioUser, {
    socketPath,
    // Rounded up to a power of two; the rest becomes the read/write section, which Ethernet does not use.
    size: 4096 + 2 * outputSectionSize,
    outputSectionSize,
    maxPeers: 2,
    vectors: 2,
    protocol: ETHERNET,
  });
  const hide = () => rmSync(socketPath, { force: true });
  process.once('exit', hide);
  const since = new Date();
  return {
    observed: server,
    report: () => serverReport(server, vfioUser, since),
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

/** Names the path that the user has given, not that of the server, if the server's socket cannot be created. */
function createServer(vfioUser: string, options: HostServerOptions & { socketPath: string }): HostServer {
  try {
    return createHostServer(options);
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.subject !== options.socketPath) throw error;
    throw new Error(error.message.replace(options.socketPath, vfioUser), { cause: error });
  }
}
