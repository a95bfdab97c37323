/** A file, folder, symbolic link or device node in an initial file system. */
export interface CpioEntry {
  /** Without a leading slash. */
  readonly path: string;
  /** Type and permissions, as in stat(2). */
  readonly mode: number;
  /** A file's bytes, or a link's target. */
  readonly data?: Uint8Array;
}

const TRAILER: CpioEntry = { path: 'TRAILER!!!', mode: 0 };

/**
 * Packs entries into a cpio archive of format "newc", which the kernel unpacks as its first root file system. Folders
 * must come before what is in them. Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
 */
export function* cpio(entries: Iterable<CpioEntry>): Generator<Uint8Array> {
  let inode = 1;
  for (const entry of entries) yield* member(entry, inode++);
  yield* member(TRAILER, 0);
}

function* member({ path, mode, data = new Uint8Array(0) }: CpioEntry, inode: number): Generator<Uint8Array> {
  const name = Buffer.from(`${path}\0`);
  const uid = 0;
  const links = 1;
  const time = 0;
  const device = [0, 0, 0, 0];
  const check = 0;
  const fields = [inode, mode, uid, uid, links, time, data.length, ...device, name.length, check];
  const header = Buffer.from(`070701${fields.map((value) => value.toString(16).padStart(8, '0')).join('')}`);
  yield header;
  yield name;
  yield padding(header.length + name.length);
  yield data;
  yield padding(data.length);
}

/** Header with name, and data, each end at a multiple of 4. */
function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3);
}
