import { type Tap, TunOffload } from '@ivshmem/linux/network';
import { Capability, fitsLargeFrames, type RingLayout } from '@ivshmem/transport/protocol';

/** Work that a link can offload to its peer: checksums, TCP segmentation, UDP segmentation. */
export type Offload = 'checksum' | 'tso' | 'uso';

const SEGMENTATION = TunOffload.CSUM | TunOffload.TSO4 | TunOffload.TSO6 | TunOffload.TSO_ECN;
const UDP_SEGMENTATION = TunOffload.USO4 | TunOffload.USO6;

/**
 * The capabilities to announce: those offloads that the kernel accepts on this TAP, if the sections have room for their
 * frames; 0 for a TAP without headers. Switches the TAP's offloads off. Throws SystemCallError.
 */
export function ownCapabilities(tap: Tap, layout: RingLayout): number {
  if (!tap.vnetHeader) return 0;
  if (!fitsLargeFrames(layout)) return Capability.VNET_HDR;
  // Each offload that the kernel can use towards the user of a TAP, it also accepts from that user.
  const udp = tap.setOffload(SEGMENTATION | UDP_SEGMENTATION);
  tap.setOffload(0);
  return Capability.VNET_HDR | Capability.TSO | (udp ? Capability.USO : 0);
}

/** The offloads that the kernel may use towards a peer with these common capabilities: bits of TunOffload. */
export function tapOffloads(capabilities: number): number {
  let bits = capabilities & Capability.VNET_HDR ? TunOffload.CSUM : 0;
  if (capabilities & Capability.TSO) bits |= SEGMENTATION;
  if (capabilities & Capability.USO) bits |= UDP_SEGMENTATION;
  return bits;
}

/** The names of these capabilities, for users of the link. */
export function offloadNames(capabilities: number): Offload[] {
  const names: Offload[] = [];
  if (capabilities & Capability.VNET_HDR) names.push('checksum');
  if (capabilities & Capability.TSO) names.push('tso');
  if (capabilities & Capability.USO) names.push('uso');
  return names;
}
