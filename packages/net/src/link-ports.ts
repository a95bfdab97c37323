import type { Poller } from '@ivshmem/linux/wait';
import { openPort, type Port, PortSeeker, type PortSource, ServerTrust } from '@ivshmem/transport';
import { isPeerThere, ParkedPort } from './parked-port.ts';

/** Time between the end of a provider and the first search for its successor, in ms. */
const RETRY = 100;

/** What a link does with the ports that {@link LinkPorts} opens for it. */
export interface PortUser {
  /** The port in use, if there is one. */
  readonly port: Port | undefined;
  /** Throws an Error of one line if the link cannot use such a port. Changes nothing. */
  check(port: Port): void;
  /** Moves the link to `port`, and owns it from now on. Throws an Error of one line, having closed it. */
  begin(port: Port): void;
  /** Leaves the port in use, and closes it. Throws SystemCallError. */
  leave(): void;
  /** The link cannot go on. */
  failed(error: Error): void;
  log(text: string): void;
}

/**
 * The port that a link is on: opens the first one and, when its provider has gone, the next.
 *
 * The memory of a server that has gone still links those that share it, such as a VM that cannot leave it before it is
 * restarted. So a link whose peer is there stays on that memory until the peer appears on the new server.
 */
export class LinkPorts {
  readonly #user: PortUser;
  readonly #seeker: PortSeeker<Port>;
  /** On the new server, while the link stays on the memory of the one before. */
  #parked: ParkedPort | undefined;
  /** The port in use may not be used any more. */
  #lost = false;

  /** With `wait`, also waits for the first port. Throws SystemCallError. */
  constructor(source: PortSource, wait: boolean, poller: Poller, user: PortUser) {
    this.#user = user;
    const trust = new ServerTrust();
    this.#seeker = new PortSeeker({
      poller,
      open: (opened) => openPort(source, poller, opened, trust),
      use: (port) => this.#take(port),
      failed: (error) => user.failed(error),
      log: (text) => user.log(text),
      wait,
    });
  }

  /** Opens the first port. Reports failures to the user. */
  start(): void {
    this.#seeker.seek();
  }

  #take(port: Port): void {
    const user = this.#user;
    if (user.port === undefined || !isPeerThere(user.port) || isPeerThere(port)) {
      user.begin(port);
      return;
    }
    try {
      user.check(port);
    } catch (error) {
      port.close();
      throw error;
    }
    this.#parked = new ParkedPort(port, {
      peerJoined: () => this.#move(),
      lost: (reason) => this.#forgetParked(reason),
    });
    user.log('a host server is there, the peer is not: the link stays on the memory of the one before');
  }

  /** The peer is on the new server. */
  #move(): void {
    const port = this.#parked!.release();
    this.#parked = undefined;
    try {
      this.#user.begin(port);
    } catch (error) {
      this.#seeker.retry(error as Error);
    }
  }

  #forgetParked(reason: string): void {
    this.#parked!.close();
    this.#parked = undefined;
    this.#user.log(`${reason}; the link waits for the next`);
    this.#seeker.seek(RETRY);
  }

  /** The provider of the port in use has gone. If the port is not `usable`, {@link leaveLost} has to be called soon. */
  providerGone(reason: string, usable: boolean): void {
    if (usable) {
      this.#user.log(`${reason}; the link goes on without it, and waits for it to come back`);
      this.#seeker.seek(RETRY);
      return;
    }
    this.#user.log(`${reason}; the link starts anew`);
    // Not now: the handshake may be in the middle of a step.
    this.#lost = true;
  }

  /** Leaves a port that may not be used any more, and looks for another. Not to be called by a handler of the port. */
  leaveLost(): void {
    if (!this.#lost) return;
    this.#lost = false;
    this.#user.leave();
    this.#seeker.seek();
  }

  /** Ends the search. The port in use stays the user's. */
  close(): void {
    this.#seeker.close();
    this.#parked?.close();
  }
}
