import type { Port } from '@ivshmem/transport';
import { STATE_VECTOR } from '@ivshmem/transport/protocol';

/** Receives the events of a parked port. */
export interface ParkedPortObserver {
  /** The peer has joined the provider of the parked port. */
  peerJoined(): void;
  /** The provider has gone away. */
  lost(reason: string): void;
}

/**
 * A port on a new host server, for a link that stays with its peer on the memory of the previous one. It remains at RESET
 * and exchanges no frames; its purpose is that the server reports when the peer joins.
 */
export class ParkedPort {
  readonly #port: Port;

  /** Takes ownership of the port. */
  constructor(port: Port, observer: ParkedPortObserver) {
    this.#port = port;
    port.onEvent((event) => {
      if (event.type === 'peer-joined' && event.peer === 1 - port.id) observer.peerJoined();
      else if (event.type === 'provider-gone') observer.lost(event.reason);
    });
  }

  /** Passes ownership of the port to the caller. */
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
