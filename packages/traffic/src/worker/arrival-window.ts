/** How far back a duplicate is known as one, in datagrams; a power of two. */
const WINDOW = 65536;

/** Counts datagrams by their sequence numbers, 0 … 2^32 - 2, without growing with their number. */
export class ArrivalWindow {
  /** Different datagrams. */
  received = 0;
  /** Those that came after one with a higher number. */
  reordered = 0;
  duplicates = 0;
  #highest = -1;
  /** By number modulo WINDOW, the number + 1 that came last. */
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
