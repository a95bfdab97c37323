/**
 * How long a port without interrupts waits between two looks for news: short while there is work, and twice as long
 * after each look without any.
 */
export class PollInterval {
  readonly #shortest: number;
  readonly #longest: number;
  #worked = false;
  /** The time until the next look, in ms. */
  current: number;

  /** Both in ms. */
  constructor(shortest: number, longest: number) {
    this.#shortest = shortest;
    this.#longest = longest;
    this.current = shortest;
  }

  /** There was work. Returns whether the next look has become due earlier. Allocates nothing. */
  worked(): boolean {
    this.#worked = true;
    if (this.current === this.#shortest) return false;
    this.current = this.#shortest;
    return true;
  }

  /** A look was taken. Returns whether the time until the next one has changed. */
  looked(): boolean {
    const before = this.current;
    this.current = this.#worked ? this.#shortest : Math.min(2 * before, this.#longest);
    this.#worked = false;
    return this.current !== before;
  }
}
