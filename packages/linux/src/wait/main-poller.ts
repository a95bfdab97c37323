import { EPOLLIN, Epoll, type EventHandler, type Poller } from './epoll.ts';
import { EventFd } from './eventfd.ts';

/**
 * Polls descriptors on behalf of this thread's event loop. Node cannot poll eventfds or sockets that carry descriptors, so one
 * thread of libuv's pool waits for all of them in epoll_wait(2). Without descriptors no thread waits, and Node can exit.
 */
class MainPoller implements Poller {
  #epoll: Epoll | undefined;
  #wake: EventFd | undefined;
  #waiting = false;
  #users = 0;

  add(fd: number, events: number, handler: EventHandler): void {
    this.#start().add(fd, events, handler);
    this.#users++;
    this.#run();
  }

  modify(fd: number, events: number): void {
    this.#epoll?.modify(fd, events);
  }

  remove(fd: number): void {
    const before = this.#epoll?.size;
    this.#epoll?.remove(fd);
    if (this.#epoll?.size === before) return;
    this.#users--;
    if (this.#users === 0) this.#wake?.signal();
  }

  #start(): Epoll {
    if (this.#epoll === undefined) {
      const wake = new EventFd();
      this.#epoll = new Epoll();
      this.#epoll.add(wake.fd, EPOLLIN, () => wake.drain());
      this.#wake = wake;
      // process.exit() waits for the pool's threads.
      process.once('exit', () => wake.signal());
    }
    return this.#epoll;
  }

  async #run(): Promise<void> {
    if (this.#waiting || this.#epoll === undefined) return;
    this.#waiting = true;
    try {
      while (this.#users > 0) await this.#epoll.waitAsync(-1);
    } finally {
      this.#waiting = false;
    }
  }
}

/** See `MainPoller`. An error thrown by a handler becomes an unhandled rejection. */
export const mainPoller: Poller = new MainPoller();
