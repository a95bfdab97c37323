import type { ProgramEnd } from './program.ts';

/**
 * The frames of the peer, for iterations over them. It asks for a burst when a frame is asked for and none is
 * left, and so holds one burst at most: until then the peer's frames stay in the ring.
 */
export class Inbox {
  readonly #end: ProgramEnd;
  /** Called when a burst has been asked for. */
  readonly #wake: () => void;
  #burst: readonly Uint8Array[] = [];
  #next = 0;
  #waiting: (() => void)[] = [];
  #over = false;
  #failure: Error | null = null;

  constructor(end: ProgramEnd, wake: () => void) {
    this.#end = end;
    this.#wake = wake;
  }

  /** Takes the burst that the end has received, if there is one. */
  fill(): void {
    const burst = this.#end.takeBurst();
    if (burst.length === 0) return;
    this.#end.wanted = false;
    this.#burst = burst;
    this.#next = 0;
    this.#release();
  }

  /** Nothing comes any more. Iterations end after the frames that are here; with `failure`, by throwing it. */
  finish(failure: Error | null): void {
    this.#over = true;
    this.#failure = failure;
    this.#release();
  }

  #release(): void {
    for (const release of this.#waiting) release();
    this.#waiting = [];
  }

  /** Frames as they come, each a copy. Of several iterations, each gets frames that the others do not get. */
  async *frames(): AsyncGenerator<Uint8Array, void, undefined> {
    for (;;) {
      const frame = this.#burst[this.#next];
      if (frame !== undefined) {
        this.#next++;
        yield frame.slice();
      } else if (!this.#over) {
        await this.#more();
      } else if (this.#failure !== null) {
        throw this.#failure;
      } else {
        return;
      }
    }
  }

  #more(): Promise<void> {
    this.#end.wanted = true;
    this.#wake();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
