import { fstatSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import { clearEventFd, EPOLLIN, mainPoller, signalEventFd } from '@ivshmem/linux/wait';
import { ServerConnection } from '@ivshmem/transport';

/** A client of a host server that checks each message against what the server has sent it before. */
export class CheckedClient {
  id = -1;
  /** Inode of the memory. */
  memory = 0;
  /** It has been disconnected. */
  hasEnded = false;
  /** What the server must not do, a line for each case. */
  readonly violations: string[] = [];
  /** The eventfds of each connected peer, its own included. */
  readonly peers = new Map<number, number[]>();
  readonly #connection: ServerConnection;
  readonly #vectors: number;
  #isReading = false;

  constructor(path: string, vectors: number) {
    this.#connection = ServerConnection.connect(path);
    this.#vectors = vectors;
    this.resume();
  }

  get isReading(): boolean {
    return this.#isReading;
  }

  /** Does not read until {@link resume}. */
  pause(): void {
    if (this.#isReading) mainPoller.remove(this.#connection.fd);
    this.#isReading = false;
  }

  resume(): void {
    if (this.#isReading || this.hasEnded) return;
    mainPoller.add(this.#connection.fd, EPOLLIN, () => this.#read());
    this.#isReading = true;
  }

  /** IDs of the peers that are completely announced. */
  get known(): number[] {
    const complete = [...this.peers].filter(([, fds]) => fds.length === this.#vectors);
    return complete.map(([id]) => id).sort((a, b) => a - b);
  }

  /** Whether what is rung here arrives at the other client, vector by vector. */
  reaches(other: CheckedClient): boolean {
    return this.peers.get(other.id)!.every((fd, vector) => {
      const own = other.peers.get(other.id)!;
      for (const event of own) clearEventFd(event);
      signalEventFd(fd);
      return own.every((event, at) => clearEventFd(event) === (at === vector));
    });
  }

  close(): void {
    this.pause();
    this.#connection.close();
    for (const id of [...this.peers.keys()]) this.#release(id);
  }

  #release(id: number): void {
    for (const fd of this.peers.get(id) ?? []) closeFd(fd);
    this.peers.delete(id);
  }

  #read(): void {
    try {
      for (let read = this.#connection.read(); read !== 'wait'; read = this.#connection.read()) {
        if (read === 'end') {
          this.hasEnded = true;
          this.pause();
          return;
        }
        const { message, fd } = read;
        if (message.type === 'init') {
          if (this.id !== -1) this.violations.push('a second INIT');
          this.id = message.id;
          this.memory = fstatSync(fd!).ino;
          closeFd(fd!);
        } else if (message.type === 'event-fd') {
          const fds = this.peers.get(message.id) ?? [];
          this.peers.set(message.id, fds);
          if (message.vector !== fds.length || fds.length === this.#vectors) {
            this.violations.push(`vector ${message.vector} of peer ${message.id} after ${fds.length}`);
          }
          fds.push(fd!);
        } else {
          if (!this.peers.has(message.id))
            this.violations.push(`PEER_GONE of peer ${message.id}, which was not there`);
          this.#release(message.id);
        }
      }
    } catch (error) {
      this.violations.push(String(error));
      this.pause();
    }
  }
}
