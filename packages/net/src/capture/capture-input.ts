/** The data with which a capture's thread starts. Counters and cells are shared with the main thread. */
export interface CaptureInput {
  /** Descriptor of the shared memory, for reading. Needed until the thread is up. */
  readonly memory: number;
  readonly maxPeers: number;
  readonly outputSectionSize: number;
  /** Maximum number of bytes of a frame to capture. */
  readonly snapLength: number;
  /** What the file says about its origin. */
  readonly link: string;
  readonly application: string;
  readonly system: string;
  /** Memory of a `ByteRing`. */
  readonly ring: SharedArrayBuffer;
  /** {@link COUNTERS} for each direction. */
  readonly counters: Float64Array;
  /** See `drops.ts`. */
  readonly drops: Float64Array;
  readonly cells: Int32Array;
  /** An eventfd: signalled after a change of the cells. */
  readonly wakeFd: number;
}

/** Counters of a direction. */
export const Counter = {
  /** Frames written, and their bytes. */
  frames: 0,
  bytes: 1,
  /** Frames that were not captured, including those of `overflowed`. */
  missed: 2,
  /** Frames for which the reader of the capture left no room. */
  overflowed: 3,
  /** Descriptors that no receiver accepts. */
  invalid: 4,
} as const;
export const COUNTERS = 5;

/** Eventfds that the thread waits for at most: two vectors of each peer. */
export const DOORBELLS = 4;

/** Positions of the cells. */
export const CELL = {
  /** 1: the main thread has been notified of new bytes. */
  NOTIFIED: 0,
  /** 1: there are new doorbells. */
  RENEWED: 1,
  /** The first of {@link DOORBELLS} descriptors; -1: none. */
  DOORBELL: 2,
} as const;
export const CELLS = CELL.DOORBELL + DOORBELLS;
