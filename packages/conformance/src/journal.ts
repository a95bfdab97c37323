/** Entries that are kept: the last ones. */
const KEPT = 24;

/** What the kit has done to the subject in the current check, to be shown if the check fails. */
export class Journal {
  #entries: string[] = [];
  #left = 0;

  note(entry: string): void {
    this.#entries.push(entry);
    if (this.#entries.length <= KEPT) return;
    this.#entries.shift();
    this.#left++;
  }

  clear(): void {
    this.#entries = [];
    this.#left = 0;
  }

  /** The last entries, oldest first. */
  get entries(): readonly string[] {
    return this.#left === 0 ? [...this.#entries] : [`… ${this.#left} earlier steps`, ...this.#entries];
  }
}
