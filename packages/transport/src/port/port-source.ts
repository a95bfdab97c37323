import type { Poller } from '@ivshmem/linux/wait';
import { type LoopbackEnd, LoopbackPort } from './loopback-port.ts';
import { type OpeningPort, openServerPort, type PortOpened } from './open-server-port.ts';
import { openPciPort, type PciSource } from './pci-port.ts';
import type { Port } from './port.ts';
import type { ServerTrust } from './server-trust.ts';

/** The provider of a port, as plain data that can be sent to another thread. */
export type PortSource =
  /** A host server's Unix socket. */
  | { readonly type: 'server'; readonly socketPath: string }
  /** One of two ports in this process. */
  | { readonly type: 'loopback'; readonly end: LoopbackEnd }
  /** A PCI device of this machine. */
  | ({ readonly type: 'pci' } & PciSource);

/**
 * Opens a port whose interrupts and events are handled on `poller`; may call `opened` before it returns. With `trust`, a
 * host server must be allowed to follow those that were opened with the same object before.
 */
export function openPort(
  source: PortSource,
  poller: Poller,
  opened: PortOpened,
  trust?: ServerTrust,
): OpeningPort {
  if (source.type === 'server') return openServerPort(source.socketPath, poller, opened, trust);
  let port: Port;
  try {
    port = source.type === 'pci' ? openPciPort(source, poller) : new LoopbackPort(source.end, poller);
  } catch (error) {
    opened(error as Error);
    return { cancel() {} };
  }
  opened(port);
  return { cancel() {} };
}
