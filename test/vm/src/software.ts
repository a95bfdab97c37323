import { type DebianTree, debianTree } from './debian-tree.ts';
import { guestImage } from './guest-image.ts';

/** What guests are started from. */
export interface VmSoftware {
  readonly tree: DebianTree;
  /** Path of the guests' file system. */
  readonly image: string;
}

/**
 * QEMU, kernel and file system for guests, from the cache as far as they are there. The packages must have been built.
 * Throws an Error of one line with the remedy.
 */
export function vmSoftware(log: (line: string) => void = () => {}): VmSoftware {
  const tree = debianTree(log);
  return { tree, image: guestImage(tree, log) };
}
