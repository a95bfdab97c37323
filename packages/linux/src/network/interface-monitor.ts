import { RTMGRP_LINK, RtnetlinkSocket } from './netlink.ts';
import { u32Of } from './netlink-message.ts';

/** Offset of the interface's index in struct ifinfomsg. */
const INDEX_OFFSET = 4;

/**
 * Notifications of changes to the interfaces in the network namespace of the thread that creates this: name, MTU, flags,
 * address, master, deletion, move to another namespace. Source: rtnetlink(7), RTMGRP_LINK.
 */
export class InterfaceMonitor {
  readonly #socket = new RtnetlinkSocket(RTMGRP_LINK);

  /** Readable when notifications are pending. */
  get fd(): number {
    return this.#socket.fd;
  }

  /**
   * Reads the pending notifications without blocking. Returns true if one concerns the interface `index` (any interface if
   * undefined) or if some were lost: the caller must then query the interface. Throws `SystemCallError`.
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
