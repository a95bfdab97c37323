import { StateMemory } from '@ivshmem/linux/memory';
import type { DeviceOptions } from './device-options.ts';
import { DeviceModel } from './ivshmem/device-model.ts';
import { Journal } from './vfio-user/journal.ts';

const KIND = 'device';
/** Raise it with every change of the layout below, of the journal's and of the registers'. */
const VERSION = 1;

// Offsets in bytes. Behind the state's header of 64 bytes, the journal begins at a page.
const WORDS = 0;
const MEMORY = 64;
const SETTINGS = 256;
const MAX_SETTINGS = 2048;
const REGISTERS = SETTINGS + MAX_SETTINGS;
const JOURNAL = 4096 - 64;
const SIZE = JOURNAL + Journal.SIZE;

// Positions of the words.
const CLIENT = 0;
const LAST_CLIENT = 1;
const INCOMPLETE = 2;
const ATTEMPTS = 3;
const SETTINGS_LENGTH = 4;

/** The options that decide what a VMM sees. */
function settingsOf({ socketPath, vfioUser, isolate = false }: DeviceOptions): Record<string, unknown> {
  return { socketPath, vfioUser, isolate };
}

/** What a process must know to continue a device, besides its descriptors: in memory that outlives it. */
export class DeviceState {
  readonly registers: Uint8Array;
  readonly journal: Journal;
  readonly #memory: StateMemory;
  readonly #words: Uint32Array;
  readonly #identity: BigUint64Array;

  private constructor(memory: StateMemory) {
    const { buffer } = memory.mapping;
    this.#memory = memory;
    this.#words = new Uint32Array(buffer, memory.offset + WORDS, 16);
    this.#identity = new BigUint64Array(buffer, memory.offset + MEMORY, 3);
    this.registers = new Uint8Array(buffer, memory.offset + REGISTERS, DeviceModel.REGISTERS_SIZE);
    this.journal = new Journal(memory.mapping, memory.offset + JOURNAL);
  }

  /** Of a device without a VMM. Throws SystemCallError. */
  static create(options: DeviceOptions): DeviceState {
    const memory = StateMemory.create(KIND, VERSION, SIZE);
    const text = Buffer.from(JSON.stringify(settingsOf(options)));
    if (text.length > MAX_SETTINGS) throw new RangeError(`settings of ${text.length} bytes`);
    new Uint8Array(memory.mapping.buffer, memory.offset + SETTINGS, text.length).set(text);
    const state = new DeviceState(memory);
    state.#words[SETTINGS_LENGTH] = text.length;
    return state;
  }

  /** Takes ownership of an earlier process's `fd`. Returns in one line why it cannot be used, having closed it. */
  static resume(fd: number, options: DeviceOptions): DeviceState | string {
    const memory = StateMemory.adopt(fd, KIND, VERSION, SIZE);
    if (typeof memory === 'string') return memory;
    const state = new DeviceState(memory);
    const problem = state.#problem(settingsOf(options));
    if (problem === null) return state;
    state.close();
    return `the stored state of ${KIND} ${problem}`;
  }

  #problem(settings: Record<string, unknown>): string | null {
    const { offset, mapping } = this.#memory;
    const length = this.#words[SETTINGS_LENGTH]!;
    if (length > MAX_SETTINGS) return 'has no settings';
    let stored: unknown;
    try {
      stored = JSON.parse(Buffer.from(mapping.buffer, offset + SETTINGS, length).toString());
    } catch {
      return 'has no settings';
    }
    const before = Object(stored) as Record<string, unknown>;
    const different = Object.keys(settings).filter((key) => before[key] !== settings[key]);
    if (different.length > 0) return `is that of a device with another ${different.join(', ')}`;
    if (this.#words[INCOMPLETE] !== 0) return 'lacks descriptors that could not be stored';
    return this.journal.resume();
  }

  /** Store it. It stays this object's. */
  get fd(): number {
    return this.#memory.fd;
  }

  /** The number of the VMM that is connected, 0 for none. */
  get client(): number {
    return this.#words[CLIENT]!;
  }

  /** Another VMM: returns its number, and resets all that is known of the one before. */
  nextClient(): number {
    this.#words[CLIENT] = 0;
    this.#words[ATTEMPTS] = 0;
    this.journal.clear();
    this.#words[LAST_CLIENT]!++;
    return this.#words[LAST_CLIENT]! || ++this.#words[LAST_CLIENT]!;
  }

  /** The VMM with this number is connected to peer `id` in the memory of a file; all of them are stored. */
  begin(client: number, file: { readonly dev: bigint; readonly ino: bigint }, id: number): void {
    this.#identity.set([file.dev, file.ino, BigInt(id)]);
    this.#words[CLIENT] = client;
  }

  /** The VMM is gone. */
  end(): void {
    this.#words[CLIENT] = 0;
  }

  /** Whether the VMM is connected to this peer and memory. */
  isOf(file: { readonly dev: bigint; readonly ino: bigint }, id: number): boolean {
    const [dev, ino, peer] = this.#identity;
    return dev === file.dev && ino === file.ino && peer === BigInt(id);
  }

  /** Something that belongs to this state could not be stored: no later process can use it. */
  spoil(): void {
    this.#words[INCOMPLETE] = 1;
  }

  /** Counts the processes that have tried to continue, and have not reported {@link resumed}. Returns their number. */
  attempt(): number {
    return ++this.#words[ATTEMPTS]!;
  }

  /** The device is in use as before. */
  resumed(): void {
    this.#words[ATTEMPTS] = 0;
  }

  /** Releases the memory. No view of it may be used any more. */
  close(): void {
    this.#memory.close();
  }
}
