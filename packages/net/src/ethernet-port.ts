import type { Port } from '@ivshmem/transport';
import { type RingLayout, ringLayout } from '@ivshmem/transport/protocol';

/** The protocol type of virtual peer-to-peer Ethernet. Source: specification, "Protocols". */
const ETHERNET = 0x0001;

/** The layout of the rings in a port's sections. Throws an Error of one line if the port is not for Ethernet. */
export function checkPort(port: Port): RingLayout {
  if (port.protocol !== ETHERNET) {
    const protocol = `0x${port.protocol.toString(16).padStart(4, '0')}`;
    throw new Error(`the host server offers protocol ${protocol}, not 0x0001 (Ethernet): start it with -P 1`);
  }
  if (port.id > 1) {
    throw new Error(
      `the host server gave this peer ID ${port.id}, but an Ethernet link has peers 0 and 1 only`,
    );
  }
  if (port.layout.outputSectionSize === 0) {
    throw new Error('the host server offers no output sections: start it with, for example, -o 1M');
  }
  return ringLayout(port.layout.outputSectionSize);
}
