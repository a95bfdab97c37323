/** Counters that one thread writes and every thread reads: one double each in shared memory, exact up to 2^53. */
export interface CounterSet<Name extends string> {
  /** The index of each counter in the array of {@link countersOf}. */
  readonly positions: { readonly [name in Name]: number };
  /** Memory for all of them, at 0. */
  allocate(): SharedArrayBuffer;
  /** A snapshot. */
  read(buffer: SharedArrayBuffer): { readonly [name in Name]: number };
}

/** The counters in memory that {@link CounterSet.allocate} made, to be written. */
export function countersOf(buffer: SharedArrayBuffer): Float64Array {
  return new Float64Array(buffer);
}

/** Lays out counters by their names. */
export function counterSet<Name extends string>(names: readonly Name[]): CounterSet<Name> {
  const byName = (value: (index: number) => number) =>
    Object.fromEntries(names.map((name, index) => [name, value(index)])) as {
      readonly [name in Name]: number;
    };
  return {
    positions: byName((index) => index),
    allocate: () => new SharedArrayBuffer(names.length * Float64Array.BYTES_PER_ELEMENT),
    read(buffer) {
      const counters = countersOf(buffer);
      return byName((index) => counters[index]!);
    },
  };
}
