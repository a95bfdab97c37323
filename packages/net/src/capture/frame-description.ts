import {
  FLAGS_OFFSET,
  FRAME_HEADER_SIZE,
  FrameFlag,
  GSO_TYPE_OFFSET,
  GsoType,
} from '@ivshmem/transport/protocol';
import { PacketFlag } from './pcapng.ts';

/** What pcapng says about a frame. */
export interface FrameDescription {
  readonly bytes: Uint8Array;
  readonly length: number;
  readonly flags: number;
  readonly comments: readonly string[];
}

/** A frame as it lies in a section, of which `bytes` are the beginning. With `hasHeader`, an offload header precedes it. */
export function describeFrame(bytes: Uint8Array, length: number, hasHeader: boolean): FrameDescription {
  if (!hasHeader) return { bytes, length, flags: 0, comments: [] };
  if (bytes.length < FRAME_HEADER_SIZE)
    return { bytes, length, flags: 0, comments: ['the offload header is missing'] };
  const headerFlags = bytes[FLAGS_OFFSET]!;
  const gsoType = bytes[GSO_TYPE_OFFSET]! & ~GsoType.ECN;
  const gsoSize = bytes[4]! | (bytes[5]! << 8);
  let flags = 0;
  if ((headerFlags & FrameFlag.NEEDS_CSUM) !== 0) flags |= PacketFlag.CHECKSUM_NOT_READY;
  if ((headerFlags & FrameFlag.DATA_VALID) !== 0) flags |= PacketFlag.CHECKSUM_VALID;
  const comments: string[] = [];
  if (gsoType !== GsoType.NONE) {
    if (gsoType !== GsoType.UDP_L4) flags |= PacketFlag.SEGMENTATION_OFFLOADED;
    comments.push(`offloaded: to be cut into ${partsOf(gsoType)} of ${gsoSize} bytes`);
  }
  return { bytes: bytes.subarray(FRAME_HEADER_SIZE), length: length - FRAME_HEADER_SIZE, flags, comments };
}

function partsOf(gsoType: number): string {
  if (gsoType === GsoType.UDP_L4) return 'UDP datagrams';
  if (gsoType === GsoType.TCPV4 || gsoType === GsoType.TCPV6) return 'TCP segments';
  return `segments of unknown type ${gsoType}`;
}
