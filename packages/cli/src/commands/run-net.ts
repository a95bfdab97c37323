import { OptionError } from '@ivshmem/linux';
import { openDescriptorStore } from '@ivshmem/linux/process';
import { createLink, preloadLink } from '@ivshmem/net';
import type { PortSource } from '@ivshmem/transport';
import { interfaceLabel } from '../options/interface.ts';
import { linkOptions } from '../options/library-options.ts';
import { followLink, type LinkEvent, linkLines, linkLog, linkStats } from '../output/link-events.ts';
import { interfaceReporter } from '../output/part-reports.ts';
import { runUntilStopped } from '../running-command.ts';
import { DEFAULT_SOCKET, type NetOptions } from './net.ts';

export { preloadLink };

/** Runs one link. */
export async function runNet(options: NetOptions): Promise<number> {
  const { wait = false } = options;
  const ofLink = { port: portSource(options), wait, ...linkOptions(options) };
  // A TAP of another program is that program's to keep.
  const store = options.tapFd === undefined ? openDescriptorStore(process.env, process.pid) : undefined;
  const text = { partOf: () => 'link', linesOf: linkLines(interfaceLabel(options)) };
  return await runUntilStopped<LinkEvent>('net', options, text, async ({ stop, print, add }) => {
    const link = await createLink({ ...ofLink, store }, stop, (line) => print(linkLog(line)));
    const report = interfaceReporter(link, ofLink.port, { netns: options.netns });
    add(link, () => linkStats(link), report);
    followLink(link, print);
  });
}

function portSource({ socket, pci, irq }: NetOptions): PortSource {
  if (pci === undefined) {
    if (irq !== undefined) throw new OptionError('--irq', '--irq is for a PCI device: give --pci, too');
    return { type: 'server', socketPath: socket ?? DEFAULT_SOCKET };
  }
  if (socket !== undefined)
    throw new OptionError('--socket', '--socket and --pci exclude each other: give one of them');
  return { type: 'pci', device: pci, ...(irq !== undefined && { interrupts: irq }) };
}
