const HEAD = 0;
const TAIL = 1;
const WORDS = 2;

/** A stream of bytes from one thread to another, in memory that both share. It is lock-free, and never blocks. */
export class ByteRing {
  readonly memory: SharedArrayBuffer;
  readonly #positions: Int32Array;
  readonly #bytes: Uint8Array;

  /** Attaches to the memory that {@link ByteRing.allocate} has returned. */
  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#positions = new Int32Array(memory, 0, WORDS);
    this.#bytes = new Uint8Array(memory, WORDS * 4);
  }

  /** `size`: in bytes, a power of two up to 2^30. */
  static allocate(size: number): SharedArrayBuffer {
    return new SharedArrayBuffer(WORDS * 4 + size);
  }

  /** Appends all of the bytes. Returns false, having written nothing, if there is no room for them. */
  write(bytes: Uint8Array): boolean {
    const size = this.#bytes.length;
    const head = Atomics.load(this.#positions, HEAD);
    const filled = (head - Atomics.load(this.#positions, TAIL)) >>> 0;
    if (filled + bytes.length > size) return false;
    const at = head & (size - 1);
    const first = Math.min(bytes.length, size - at);
    this.#bytes.set(first === bytes.length ? bytes : bytes.subarray(0, first), at);
    if (first < bytes.length) this.#bytes.set(bytes.subarray(first), 0);
    Atomics.store(this.#positions, HEAD, head + bytes.length);
    return true;
  }

  /** A copy of up to `limit` bytes from the front, which stay in the ring until {@link release}. */
  read(limit: number): Uint8Array {
    const size = this.#bytes.length;
    const tail = Atomics.load(this.#positions, TAIL);
    const filled = (Atomics.load(this.#positions, HEAD) - tail) >>> 0;
    const at = tail & (size - 1);
    return new Uint8Array(this.#bytes.subarray(at, at + Math.min(filled, limit, size - at)));
  }

  /** Removes bytes from the front. */
  release(length: number): void {
    Atomics.store(this.#positions, TAIL, Atomics.load(this.#positions, TAIL) + length);
  }
}
