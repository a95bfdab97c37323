import type { ProgramEnd } from './program.ts';

/**
 * The peer's frames, for iterations over them. It requests a burst only when a consumer waits for a frame and none is
 * left, so it holds one burst at most; other frames stay in the ring.
 */
export class Inbox {
  readonly #end: ProgramEnd;
  /** Called when a burst is requested. */
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

  /** Takes the burst that the end has received, if any. */
  fill(): void {
    const burst = this.#end.takeBurst();
    if (burst.length === 0) return;
    this.#end.wanted = false;
    this.#burst = burst;
    this.#next = 0;
    this.#release();
  }

  /** No more frames arrive. Iterations end after the frames that are left; with `failure`, by throwing it. */
  finish(failure: Error | null): void {
    this.#over = true;
    this.#failure = failure;
    this.#release();
  }

  #release(): void {
    for (const release of this.#waiting) release();
    this.#waiting = [];
  }

  /** Frames as they arrive, each a copy. Concurrent iterations share the frames: each frame goes to one of them. */
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
