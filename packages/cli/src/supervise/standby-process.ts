import type { ChildProcess } from 'node:child_process';
import { handOver, type PassedDescriptor } from '@ivshmem/linux/process';
import { UnixSocket } from '@ivshmem/linux/socket';
import { startStandby } from './child-process.ts';

/** A program that has been loaded in advance, and continues as soon as it gets the descriptors of the one that has ended. */
export class StandbyProcess {
  readonly #socket: UnixSocket;
  readonly #child: ChildProcess;

  /** Starts it. Throws SystemCallError. */
  constructor(command: readonly string[], variables: Readonly<Record<string, string>>) {
    const [ours, theirs] = UnixSocket.pair();
    this.#socket = ours;
    try {
      this.#child = startStandby(command, theirs.fd, variables);
    } finally {
      theirs.close();
    }
    this.#child.on('error', () => {});
  }

  /** Makes it the program. Returns null if it has ended, or does not answer. */
  use(descriptors: readonly PassedDescriptor[]): ChildProcess | null {
    const { exitCode, signalCode } = this.#child;
    try {
      if (exitCode === null && signalCode === null && handOver(this.#socket, descriptors)) return this.#child;
    } catch {
      // It has just ended.
    } finally {
      this.#socket.close();
    }
    this.#child.kill('SIGKILL');
    return null;
  }

  close(): void {
    this.#socket.close();
    this.#child.kill('SIGKILL');
  }
}
