/** Number of datagrams within which duplicates are detected; a power of two. */
const WINDOW = 65536;

/** Counts datagrams by their sequence numbers, 0 … 2^32 - 2, in constant memory. */
export class ArrivalWindow {
  /** Datagrams, without duplicates. */
  received = 0;
  /** Datagrams that arrived after one with a higher number. */
  reordered = 0;
  duplicates = 0;
  #highest = -1;
  /** By number modulo WINDOW: the last number that arrived, plus 1. */
  readonly #seen = new Uint32Array(WINDOW);

  arrive(sequence: number): void {
    const slot = sequence % WINDOW;
    if (this.#seen[slot] === sequence + 1) {
      this.duplicates++;
      return;
    }
    this.#seen[slot] = sequence + 1;
    this.received++;
    if (sequence < this.#highest) this.reordered++;
    else this.#highest = sequence;
  }
}
