/** A number array that grows. */
export class Numbers {
  #array = new Int32Array(1 << 16);
  length = 0;

  push(value: number): void {
    if (this.length === this.#array.length) {
      const grown = new Int32Array(2 * this.length);
      grown.set(this.#array);
      this.#array = grown;
    }
    this.#array[this.length++] = value;
  }

  at(index: number): number {
    return this.#array[index]!;
  }
}

/** Numbers pairs of peer states in the order of their discovery. */
export class Nodes {
  readonly #locals: number[] = [];
  readonly #localNumbers = new Map<number, number>();
  readonly #keys = new Numbers();
  /** Open addressing; 0 is empty, otherwise node + 1. */
  #table = new Int32Array(1 << 18);

  get length(): number {
    return this.#keys.length;
  }

  #local(peer: number): number {
    let number = this.#localNumbers.get(peer);
    if (number === undefined) {
      number = this.#locals.push(peer) - 1;
      if (number > 0xffff) throw new RangeError('more than 65536 states of one peer');
      this.#localNumbers.set(peer, number);
    }
    return number;
  }

  peer0(node: number): number {
    return this.#locals[this.#keys.at(node) & 0xffff]!;
  }

  peer1(node: number): number {
    return this.#locals[this.#keys.at(node) >>> 16]!;
  }

  /** The number of a pair; the next free number if the pair is new. */
  number(peer0: number, peer1: number): number {
    const key = this.#local(peer0) | (this.#local(peer1) << 16);
    if (2 * this.length > this.#table.length) this.#grow();
    const slot = this.#slot(key);
    const found = this.#table[slot]!;
    if (found !== 0) return found - 1;
    this.#keys.push(key);
    this.#table[slot] = this.length;
    return this.length - 1;
  }

  #slot(key: number): number {
    const mask = this.#table.length - 1;
    const hash = Math.imul(key, 0x9e3779b1);
    let slot = (hash ^ (hash >>> 15)) & mask;
    while (this.#table[slot] !== 0 && this.#keys.at(this.#table[slot]! - 1) !== key) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    this.#table = new Int32Array(2 * this.#table.length);
    for (let node = 0; node < this.length; node++) this.#table[this.#slot(this.#keys.at(node))] = node + 1;
  }
}

/** The first node from which no step leads to one of `goals`; -1 if there is none. `goals` is overwritten. */
export function cutOff(goals: Uint8Array, first: Numbers, targets: Numbers): number {
  const count = goals.length;
  // The steps backwards: those to a node are `sources` from `begin` of that node on.
  const begin = new Int32Array(count + 1);
  for (let i = 0; i < targets.length; i++) begin[targets.at(i) + 1]!++;
  for (let node = 0; node < count; node++) begin[node + 1]! += begin[node]!;
  const fill = begin.slice();
  const sources = new Int32Array(targets.length);
  for (let node = 0; node < count; node++) {
    for (let i = first.at(node); i < first.at(node + 1); i++) sources[fill[targets.at(i)]!++] = node;
  }
  const reaches = goals;
  const pending: number[] = [];
  for (let node = 0; node < count; node++) if (goals[node] === 1) pending.push(node);
  while (pending.length > 0) {
    const node = pending.pop()!;
    for (let i = begin[node]!; i < begin[node + 1]!; i++) {
      const source = sources[i]!;
      if (reaches[source] === 0) {
        reaches[source] = 1;
        pending.push(source);
      }
    }
  }
  return reaches.indexOf(0);
}

/**
 * Takes away the nodes that no step leads to, again and again, and counts the steps on the longest path so. What is
 * left lies on cycles or behind them: those nodes are followed backwards until one comes again.
 */
export function order(count: number, first: Numbers, targets: Numbers): { longest: number; onCycle: number } {
  const incoming = new Int32Array(count);
  for (let i = 0; i < targets.length; i++) incoming[targets.at(i)]!++;
  const ready: number[] = [];
  for (let node = 0; node < count; node++) if (incoming[node] === 0) ready.push(node);
  const depth = new Int32Array(count);
  let longest = 0;
  let removed = 0;
  while (ready.length > 0) {
    const node = ready.pop()!;
    removed++;
    longest = Math.max(longest, depth[node]!);
    for (let i = first.at(node); i < first.at(node + 1); i++) {
      const target = targets.at(i);
      depth[target] = Math.max(depth[target]!, depth[node]! + 1);
      if (--incoming[target]! === 0) ready.push(target);
    }
  }
  if (removed === count) return { longest, onCycle: -1 };
  // Each of the nodes left has a predecessor among them.
  const predecessor = new Int32Array(count);
  for (let node = 0; node < count; node++) {
    if (incoming[node] === 0) continue;
    for (let i = first.at(node); i < first.at(node + 1); i++) predecessor[targets.at(i)] = node;
  }
  const seen = new Uint8Array(count);
  let node = incoming.findIndex((left) => left > 0);
  for (; seen[node] === 0; node = predecessor[node]!) seen[node] = 1;
  return { longest: -1, onCycle: node };
}
