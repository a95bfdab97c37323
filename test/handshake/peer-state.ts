/** Where a peer stands with the host server. */
export const Phase = {
  /** Not connected; its state table entry is 0, and its ID may be given again. */
  GONE: 0,
  /** Dead, which the server has not noticed yet: the state table entry is what it was. */
  DEAD: 1,
  /** Its device is connected, its driver is not running: interrupts are lost. */
  CONNECTED: 2,
  ALIVE: 3,
} as const;

/**
 * All there is to know of one peer, in the 24 bits of a number: each field's lowest bit and width.
 * `QUEUE` counts the server's messages that it has not read yet. There are two kinds, which alternate (the other peer's
 * eventfds, the other peer is gone), and the last one has the current state, so that the number suffices.
 */
export const Field = {
  PHASE: [0, 2],
  /** Its own entry of the state table. */
  STATE: [2, 2],
  RUNNING: [4, 1],
  CARRIER: [5, 1],
  /** An interrupt is pending; several are one. */
  IRQ: [6, 1],
  /** An evaluation is due. */
  WORK: [7, 1],
  UP: [8, 1],
  MEMORY: [9, 3],
  /** The list of steps it is at, 0 for none, and the position there. */
  PROGRAM: [12, 5],
  POSITION: [17, 3],
  QUEUE: [20, 4],
} as const;
type Field = (typeof Field)[keyof typeof Field];

export function get(peer: number, [shift, width]: Field): number {
  return (peer >>> shift) & ((1 << width) - 1);
}

export function set(peer: number, [shift, width]: Field, value: number): number {
  return (peer & ~(((1 << width) - 1) << shift)) | (value << shift);
}
