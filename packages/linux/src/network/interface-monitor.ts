import { RTMGRP_LINK, RtnetlinkSocket } from './netlink.ts';
import { u32Of } from './netlink-message.ts';

/** Where struct ifinfomsg has the interface's index. */
const INDEX_OFFSET = 4;

/**
 * Notifications of changes to the interfaces of the network namespace that the calling thread is in when this is made:
 * name, MTU, flags, address, master, deletion, departure to another namespace. Source: rtnetlink(7), RTMGRP_LINK.
 */
export class InterfaceMonitor {
  readonly #socket = new RtnetlinkSocket(RTMGRP_LINK);

  /** Readable when something has changed. */
  get fd(): number {
    return this.#socket.fd;
  }

  /**
   * Takes the notifications that have come, without waiting. Returns whether one concerns the interface `index`, or any
   * interface if it is undefined, or some were lost: then it is time to look at what is. Throws
   * `SystemCallError`.
   */
  changed(index: number | undefined): boolean {
    const events = this.#socket.takeEvents();
    if (events === null) return true;
    return events.some(
      ({ payload }) => index === undefined || u32Of(payload.subarray(INDEX_OFFSET)) === index,
    );
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
