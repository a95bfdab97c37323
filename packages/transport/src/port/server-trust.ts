import { F_SEAL_SHRINK, sealsOf } from '@ivshmem/linux/memory';

/** The properties of a host server that decide whether to trust its memory: see {@link ServerTrust}. */
export interface ServerIdentity {
  /** User of the process that listens at the path, as of listen(2). */
  readonly uid: number;
  /** The shared memory cannot be truncated, so an access to it cannot kill the process. */
  readonly sealed: boolean;
}

/**
 * Decides which host servers may follow the first one: those of the same user or root, since any user may listen at a path
 * in /tmp later; and if the first one's memory could not be truncated, theirs must not be truncatable either.
 */
export class ServerTrust {
  #first: ServerIdentity | undefined;

  /** Throws Error, with one line, if a server of this user may not follow the first. */
  checkUser(uid: number): void {
    const first = this.#first;
    if (first === undefined || uid === first.uid || uid === 0) return;
    throw new Error(
      `it is run by user ${uid}, the one before by user ${first.uid}: if it is to be trusted, start this program again`,
    );
  }

  /** Throws Error, with one line, if memory with or without seals may not follow the first. */
  checkMemory(sealed: boolean): void {
    if (sealed || this.#first?.sealed !== true) return;
    throw new Error(
      'any client can truncate its memory, and could not before: start it without -M and -m, or this program again',
    );
  }

  /** A server is connected to: if it is the first, others are compared with it. */
  accept(identity: ServerIdentity): void {
    this.#first ??= identity;
  }
}

/** Whether a file cannot be truncated. */
export function isSealed(fd: number): boolean {
  return (sealsOf(fd) & F_SEAL_SHRINK) !== 0;
}
