import type { DescriptorStore } from '@ivshmem/linux/process';
import type { Poller } from '@ivshmem/linux/wait';
import {
  openPort,
  type Port,
  PortSeeker,
  type PortSource,
  restoreServerPort,
  ServerPort,
  ServerTrust,
} from '@ivshmem/transport';
import { isPeerThere, ParkedPort } from './parked-port.ts';

/** Time between the end of a provider and the first search for its successor, in ms. */
const RETRY = 100;

/** What a link does with the ports that {@link LinkPorts} opens for it. */
export interface PortUser {
  /** The port in use, if there is one. */
  readonly port: Port | undefined;
  /** Throws an Error of one line if the link cannot use such a port. Changes nothing. */
  check(port: Port): void;
  /** Moves the link to `port`, and takes ownership of it. Throws an Error of one line, having closed it. */
  begin(port: Port): void;
  /** Leaves the port in use, and closes it. Throws SystemCallError. */
  leave(): void;
  /** The link cannot continue. */
  failed(error: Error): void;
  log(text: string): void;
}

/**
 * Opens a link's first port and, when its provider has gone away, the next.
 *
 * The memory of a server that has ended still connects the peers that share it, such as a VM, which cannot leave it
 * without a restart. So a link whose peer is connected stays on that memory until the peer joins the new server.
 */
export class LinkPorts {
  readonly #source: PortSource;
  readonly #poller: Poller;
  readonly #user: PortUser;
  readonly #store: DescriptorStore | undefined;
  readonly #trust = new ServerTrust();
  readonly #seeker: PortSeeker<Port>;
  /** On the new server, while the link stays on the memory of the previous one. */
  #parked: ParkedPort | undefined;
  /** The port in use must not be used any more. */
  #lost = false;

  /**
   * With `wait`, also waits for the first port. A port on a host server that is in use is kept in `store`, and the first port is the
   * one that the process before has kept there. Throws SystemCallError.
   */
  constructor(source: PortSource, wait: boolean, poller: Poller, user: PortUser, store?: DescriptorStore) {
    this.#source = source;
    this.#poller = poller;
    this.#user = user;
    this.#store = store;
    this.#seeker = new PortSeeker({
      poller,
      open: (opened) => openPort(source, poller, opened, this.#trust),
      use: (port) => this.#take(port),
      failed: (error) => user.failed(error),
      log: (text) => user.log(text),
      wait,
    });
  }

  /** Opens the first port. Reports failures to the user. */
  start(): void {
    const port = this.#restore();
    if (port === null) {
      this.#seeker.seek();
      return;
    }
    try {
      this.#user.begin(port);
    } catch (error) {
      this.#user.failed(error as Error);
      return;
    }
    if (!port.connected) this.providerGone('the host server is gone', true);
  }

  #restore(): ServerPort | null {
    if (this.#store === undefined || this.#source.type !== 'server') return null;
    const { socketPath } = this.#source;
    const log = (text: string) => this.#user.log(text);
    const port = restoreServerPort(this.#store, socketPath, this.#poller, this.#trust, log);
    if (typeof port !== 'string') return port;
    log(`the port of the process before is not used: ${port}`);
    return null;
  }

  #begin(port: Port): void {
    this.#user.begin(port);
    if (this.#store !== undefined && port instanceof ServerPort) {
      port.keep(this.#store, (text) => this.#user.log(text));
    }
  }

  #take(port: Port): void {
    const user = this.#user;
    if (user.port === undefined || !isPeerThere(user.port) || isPeerThere(port)) {
      this.#begin(port);
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

  /** The peer has joined the new server. */
  #move(): void {
    const port = this.#parked!.release();
    this.#parked = undefined;
    try {
      this.#begin(port);
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

  /** The provider of the port in use has gone away. If the port is not `usable`, call {@link leaveLost} soon. */
  providerGone(reason: string, usable: boolean): void {
    if (usable) {
      this.#user.log(`${reason}; the link goes on without it, and waits for it to come back`);
      this.#seeker.seek(RETRY);
      return;
    }
    this.#user.log(`${reason}; the link starts anew`);
    // Deferred to leaveLost, since the handshake may be in the middle of a step.
    this.#lost = true;
  }

  /** Leaves a port that must not be used any more, and searches for another. Not to be called by a handler of the port. */
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
