import { closeFd } from '@ivshmem/linux';
import { drainEventFd, EPOLLIN, mainPoller, signalEventFd } from '@ivshmem/linux/wait';
import { ServerConnection } from '@ivshmem/transport';

/** A correct peer among hostile ones, which checks every message that it gets. */
export class Resident {
  readonly path: string;
  /** Fulfilled when it has all its own eventfds. */
  readonly ready: Promise<void>;
  id = -1;
  /** Why it is connected no more; null as long as it is. */
  lost: string | null = null;
  /** Doorbells that it was rung and did not hear. */
  missed = 0;
  readonly #connection: ServerConnection;
  readonly #eventFds = new Map<number, number[]>();
  #memory = -1;
  #vectors = 0;
  #resolveReady!: () => void;

  constructor(path: string) {
    this.path = path;
    this.#connection = ServerConnection.connect(path);
    this.ready = new Promise((resolve) => {
      this.#resolveReady = resolve;
    });
    mainPoller.add(this.#connection.fd, EPOLLIN, () => this.#read());
  }

  #read(): void {
    try {
      for (;;) {
        const received = this.#connection.read();
        if (received === 'wait') return;
        if (received === 'end') throw new Error('disconnected by the server');
        const { message, fd } = received;
        if (message.type === 'init') {
          this.id = message.id;
          this.#vectors = message.vectors;
          this.#memory = fd!;
        } else if (message.type === 'event-fd') {
          const fds = this.#eventFds.get(message.id) ?? [];
          fds.push(fd!);
          this.#eventFds.set(message.id, fds);
          if (message.vector !== fds.length - 1) throw new Error(`vector ${message.vector} out of order`);
          if (message.id === this.id && fds.length === this.#vectors) this.#resolveReady();
        } else {
          const fds = this.#eventFds.get(message.id);
          if (fds === undefined) throw new Error(`peer ${message.id} is gone that never was`);
          for (const each of fds) closeFd(each);
          this.#eventFds.delete(message.id);
        }
      }
    } catch (error) {
      this.lost = `${this.path}, peer ${this.id}: ${(error as Error).message}`;
      mainPoller.remove(this.#connection.fd);
    }
  }

  /** Rings another peer on vector 1. */
  ring(peer: number): void {
    const fd = this.#eventFds.get(peer)?.[1];
    if (fd !== undefined) signalEventFd(fd);
  }

  /** Whether it was rung on vector 1 since it was asked last. */
  hear(): boolean {
    return drainEventFd(this.#eventFds.get(this.id)![1]!) > 0n;
  }

  close(): void {
    if (this.lost === null) mainPoller.remove(this.#connection.fd);
    this.#connection.close();
    for (const fds of this.#eventFds.values()) for (const fd of fds) closeFd(fd);
    if (this.#memory !== -1) closeFd(this.#memory);
  }
}
