import { checkWholeNumber, OptionError } from '@ivshmem/linux';
import { PAGE_SIZE } from '@ivshmem/linux/memory';
import { MAX_ID } from '@ivshmem/linux/process';
import { checkSocketPath, type PeerCredentials } from '@ivshmem/linux/socket';
import {
  type LayoutError,
  MAX_SERVER_PEERS,
  memoryLayout,
  STATE_TABLE_SIZE,
} from '@ivshmem/transport/protocol';

/** The kind of file behind the shared memory. */
export type SharedMemorySource =
  /** Anonymous memory. With `seal` its size is fixed; without, any client can truncate it and so kill the others. */
  | {
      readonly kind: 'memfd';
      readonly seal: boolean;
      /** Use huge pages of this size in bytes, such as 2^21 or 2^30. */
      readonly hugePageSize?: number | undefined;
    }
  /** A POSIX shared memory object, which other programs can open by name. Any client can truncate it. */
  | { readonly kind: 'posix'; readonly name: string }
  /** A nameless file in a directory, for example a mount point of hugetlbfs. Any client can truncate it. */
  | { readonly kind: 'directory'; readonly path: string };

/** Settings of a host server. Defaults are those of the command line. */
export interface HostServerSettings {
  /** Path of the Unix socket, up to 107 bytes. Default `/tmp/ivshmem_socket`. */
  readonly socketPath: string;
  /** Permissions of the socket file; clients need write permission. Default 0o600. */
  readonly mode: number;
  /** Group of the socket file, a gid. Default: that of this process. */
  readonly group?: number | undefined;
  /** Default: a sealed memfd. */
  readonly sharedMemory: SharedMemorySource;
  /** Size of the shared memory in bytes, 1 … 64 TiB (2^46); rounded up to a power of two. Default 4 MiB. */
  readonly size: number;
  /**
   * Size of each output section in bytes, a multiple of the host's page size. Default 0; with protocol 0x0001, which needs
   * output sections, the largest power of two up to 1 MiB that fits into the memory.
   */
  readonly outputSectionSize: number;
  /** Maximum number of peers, 2 … 1024: one per entry of the state table. Default 2. */
  readonly maxPeers: number;
  /** Interrupt vectors of each peer, 1 … {@link MAX_SERVER_VECTORS}. Default 1; with protocol 0x0001, 2. */
  readonly vectors: number;
  /**
   * Protocol type, 16 bits. Types from 0x8000 are virtio, with exactly two peers: peer 0 gets the back-end's type (bit
   * 0x4000 set), peer 1 the front-end's. Default 0.
   */
  readonly protocol: number;
  /** Accepts or rejects a client that `mode` lets connect. Default: accepts all. */
  readonly allow: (credentials: PeerCredentials) => boolean;
  /** Evict a client that has not read its pending messages for this long, in seconds, 1 … 86400. Default 30. */
  readonly evictAfter: number;
}

/** Maximum number of vectors per peer. Source: the server of the patch series that introduced ivshmem v2. */
export const MAX_SERVER_VECTORS = 64;
/** The largest shared memory, in bytes: half of the address space of a process on x86-64. */
export const MAX_SIZE = 2 ** 46;
const ETHERNET_PROTOCOL = 0x0001;
/** Vectors that Linux' Ethernet driver requires: one for states, one for rings. */
const ETHERNET_VECTORS = 2;
/** The largest default section for Ethernet, in bytes. */
const ETHERNET_SECTION = 2 ** 20;
const FIRST_VIRTIO_PROTOCOL = 0x8000;
const VIRTIO_BACK_END = 0x4000;

export const DEFAULT_SETTINGS: HostServerSettings = {
  socketPath: '/tmp/ivshmem_socket',
  mode: 0o600,
  sharedMemory: { kind: 'memfd', seal: true },
  size: 4 * 1024 * 1024,
  outputSectionSize: 0,
  maxPeers: 2,
  vectors: 1,
  protocol: 0,
  allow: () => true,
  evictAfter: 30,
};

function nextPowerOfTwo(size: number): number {
  let power = 1;
  while (power < size) power *= 2;
  return power;
}

/** Names as shm_open(3) accepts them: one path component, with or without a leading slash. */
function isSharedMemoryName(name: string): boolean {
  const bare = name.replace(/^\/+/, '');
  return (
    bare !== '' && bare !== '.' && bare !== '..' && !/[/\0]/.test(bare) && Buffer.byteLength(bare) <= 255
  );
}

/**
 * Completes settings with defaults, rounds up the size of the memory and checks all values, without system calls.
 * `hostPage`: the host's page size in bytes; clients reject sections that are not multiples of it. Throws
 * {@link OptionError}, whose `option` is the name of the setting.
 */
export function completeSettings(
  given: Partial<HostServerSettings>,
  hostPage = PAGE_SIZE,
): HostServerSettings {
  const known = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const defaults = { ...DEFAULT_SETTINGS, ...protocolDefaults({ ...DEFAULT_SETTINGS, ...known }, hostPage) };
  const settings: HostServerSettings = { ...defaults, ...known };
  const { socketPath, sharedMemory, maxPeers, outputSectionSize } = settings;
  checkSocketPath('socketPath', socketPath);
  if (sharedMemory.kind === 'posix' && !isSharedMemoryName(sharedMemory.name)) {
    const problem = 'must be a name of up to 255 bytes, without slashes except a leading one';
    throw new OptionError(
      'sharedMemory',
      `shared memory object ${JSON.stringify(sharedMemory.name)}: ${problem}`,
    );
  }
  if (sharedMemory.kind === 'directory' && !/^[^\0]+$/.test(sharedMemory.path)) {
    throw new OptionError('sharedMemory', `directory ${JSON.stringify(sharedMemory.path)}: must be a path`);
  }
  checkWholeNumber('mode', 'socket mode', settings.mode, [0, 0o777]);
  checkWholeNumber('vectors', 'vectors', settings.vectors, [1, MAX_SERVER_VECTORS]);
  checkWholeNumber('protocol', 'protocol', settings.protocol, [0, 0xffff]);
  checkWholeNumber('size', 'size of shared memory', settings.size, [1, MAX_SIZE]);
  checkWholeNumber('evictAfter', 'time to evict', settings.evictAfter, [1, 86400]);
  if (settings.group !== undefined) checkWholeNumber('group', 'group', settings.group, [0, MAX_ID]);
  const pageSize = (sharedMemory.kind === 'memfd' ? sharedMemory.hugePageSize : undefined) ?? hostPage;
  checkWholeNumber('sharedMemory', 'size of huge pages', pageSize, [4096, MAX_SIZE]);
  if (!Number.isInteger(Math.log2(pageSize))) {
    throw new OptionError(
      'sharedMemory',
      `size of huge pages ${pageSize}: must be a power of two, such as 2M`,
    );
  }
  const size = Math.max(nextPowerOfTwo(settings.size), pageSize);
  checkLayout(size, maxPeers, outputSectionSize, hostPage);
  if (settings.protocol >= FIRST_VIRTIO_PROTOCOL && maxPeers > 2) {
    throw new OptionError('maxPeers', `${maxPeers} peers: virtio protocols (0x8000 to 0xffff) have two`);
  }
  return { ...settings, size };
}

/** Checks the sections. The option at fault is the number of peers if out of range, or else the size of the sections. */
function checkLayout(size: number, maxPeers: number, outputSectionSize: number, hostPage: number): void {
  const option = maxPeers >= 2 && maxPeers <= MAX_SERVER_PEERS ? 'outputSectionSize' : 'maxPeers';
  try {
    memoryLayout(size, maxPeers, outputSectionSize, hostPage);
  } catch (error) {
    throw new OptionError(option, (error as LayoutError).message);
  }
}

/** Defaults for protocol 0x0001, which does not work with those of the original server. */
function protocolDefaults(
  { protocol, size, maxPeers }: HostServerSettings,
  hostPage: number,
): Partial<HostServerSettings> {
  if (protocol !== ETHERNET_PROTOCOL) return {};
  let section = ETHERNET_SECTION;
  while (section > hostPage && STATE_TABLE_SIZE + maxPeers * section > nextPowerOfTwo(size)) section /= 2;
  return { vectors: ETHERNET_VECTORS, outputSectionSize: section };
}

/** Warnings about settings that are valid but that peers cannot use; one line each. */
export function settingsWarnings({ protocol, vectors, outputSectionSize }: HostServerSettings): string[] {
  if (protocol !== ETHERNET_PROTOCOL) return [];
  const warnings: string[] = [];
  if (outputSectionSize === 0) {
    warnings.push('protocol 0x0001 needs output sections: add -o 1M (outputSectionSize)');
  }
  if (vectors < ETHERNET_VECTORS) {
    warnings.push("Linux' Ethernet driver rejects devices with one vector: add -V 2 (vectors)");
  }
  return warnings;
}

/** The protocol type sent to a peer: virtio has one for each side. */
export function protocolOf(settings: Pick<HostServerSettings, 'protocol'>, peer: number): number {
  const { protocol } = settings;
  if (protocol < FIRST_VIRTIO_PROTOCOL) return protocol;
  return peer === 0 ? protocol | VIRTIO_BACK_END : protocol & ~VIRTIO_BACK_END;
}
