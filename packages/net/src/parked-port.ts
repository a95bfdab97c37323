import type { Port } from '@ivshmem/transport';
import { STATE_VECTOR } from '@ivshmem/transport/protocol';

/** What becomes of a parked port. */
export interface ParkedPortObserver {
  /** The peer has joined the provider of the parked port. */
  peerJoined(): void;
  /** The provider is gone. */
  lost(reason: string): void;
}

/**
 * A port of a new host server, for a link that stays with its peer on the memory of the one before: it takes part in
 * nothing, its state is RESET, but the server reports whether the peer has joined.
 */
export class ParkedPort {
  readonly #port: Port;

  /** Takes over the port. */
  constructor(port: Port, observer: ParkedPortObserver) {
    this.#port = port;
    port.onEvent((event) => {
      if (event.type === 'peer-joined' && event.peer === 1 - port.id) observer.peerJoined();
      else if (event.type === 'provider-gone') observer.lost(event.reason);
    });
  }

  /** Gives the port to the caller. */
  release(): Port {
    this.#port.onEvent(() => {});
    return this.#port;
  }

  close(): void {
    this.release().close();
  }
}

/** Whether the other peer of a link is connected to the same provider. */
export function isPeerThere(port: Port): boolean {
  return port.ring(1 - port.id, STATE_VECTOR);
}
