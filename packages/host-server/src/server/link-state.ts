import { createHash } from 'node:crypto';
import { type Mapping, mapPrivate, StateMemory } from '@ivshmem/linux/memory';
import { type MessagePart, MessageRecord, type PeerCredentials, writeRights } from '@ivshmem/linux/socket';
import type { HostServerSettings } from './options.ts';

const KIND = 'server';
/** Of the format of the data: raised by each change of it, or of what a field means. */
const VERSION = 1;

/*
 * The data. Integers are u32 at these indices, numbers are doubles at these; each view is {u32 serial, u32 vectors}.
 *   0 … 127     last serial, settings
 *   128 … 447   the message that is being sent: what it is, record of the system call, control message, bytes
 *   512 …       a slot of 64 bytes for each ID
 *   then        for each client, its view of each peer
 */
const LAST_SERIAL = 0;
const FIRST_NUMBER = 1;
const MEMORY_HASH = 64;
const HASH_SIZE = 32;
const SENDING = { active: 32, client: 33, clientSerial: 34, peer: 35, serial: 36, vectors: 37, length: 38 };
const RECORD = 192;
const CONTROL = 320;
const CMSGHDR_SIZE = 16;
const MESSAGE = 384;
const MESSAGE_SIZE = 64;
const SLOTS = 512;
const SLOT_SIZE = 64;
const SLOT = { serial: 0, used: 1, pid: 2, uid: 3, gid: 4, welcomed: 5 };
const SLOT_SINCE = 32;
const VIEW_SIZE = 8;
/** In place of a peer's ID: the message is INIT. */
const INIT = 0xffffffff;
/** The latest time of a Date, in ms. */
const MAX_TIME = 8.64e15;

/** The settings that clients know: with others, a server cannot continue. */
const KNOWN_TO_CLIENTS = ['size', 'outputSectionSize', 'maxPeers', 'vectors', 'protocol'] as const;

/** A connected client. */
export interface Tenant {
  /** Not 0, and unique among the connected clients. */
  readonly serial: number;
  readonly credentials: PeerCredentials;
  readonly since: Date;
}

/** A message to a client, and what the client has seen once it is sent. */
export interface Message {
  readonly bytes: Uint8Array;
  /** Descriptor that goes with it. */
  readonly fd: number | null;
  /** The peer that it is about, and which of its vectors have been announced then; null for INIT. */
  readonly about: { readonly peer: number; readonly serial: number; readonly vectors: number } | null;
}

/**
 * What a server knows of its clients: who has which ID, and what has been sent to each. With a descriptor store it is in a
 * memfd that outlives the process, and is right at any instruction: what is sent, and that it is sent, is one system call.
 */
export class LinkState {
  /** The memfd; undefined without a descriptor store. */
  readonly fd: number | undefined;
  readonly #maxPeers: number;
  readonly #memory: Mapping;
  readonly #close: () => void;
  readonly #words: Uint32Array;
  readonly #numbers: Float64Array;
  readonly #bytes: Uint8Array;
  readonly #record: MessageRecord;
  /** The control message for one descriptor, which is {@link #passed}. */
  readonly #control: MessagePart;
  readonly #passed: Int32Array;
  /** Of the data in the mapping, in bytes. */
  readonly #offset: number;

  private constructor(
    memory: Mapping,
    offset: number,
    maxPeers: number,
    fd: number | undefined,
    close: () => void,
  ) {
    const size = sizeFor(maxPeers);
    this.fd = fd;
    this.#maxPeers = maxPeers;
    this.#memory = memory;
    this.#close = close;
    this.#offset = offset;
    this.#words = new Uint32Array(memory.buffer, offset, size / 4);
    this.#numbers = new Float64Array(memory.buffer, offset, size / 8);
    this.#bytes = new Uint8Array(memory.buffer, offset, size);
    this.#record = new MessageRecord(memory, offset + RECORD);
    this.#control = writeRights(memory, offset + CONTROL, [-1]);
    this.#passed = new Int32Array(memory.buffer, offset + CONTROL + CMSGHDR_SIZE, 1);
  }

  /** Creates the state of a server without clients. `isKept`: in a memfd. Throws SystemCallError. */
  static create(settings: HostServerSettings, isKept: boolean): LinkState {
    const { maxPeers } = settings;
    let state: LinkState;
    if (isKept) {
      const kept = StateMemory.create(KIND, VERSION, sizeFor(maxPeers));
      state = new LinkState(kept.mapping, kept.offset, maxPeers, kept.fd, () => kept.close());
    } else {
      const memory = mapPrivate(sizeFor(maxPeers));
      state = new LinkState(memory, 0, maxPeers, undefined, () => memory.close());
    }
    state.#numbers.set(numbersOf(settings), FIRST_NUMBER);
    state.#bytes.set(hashOf(settings), MEMORY_HASH);
    return state;
  }

  /**
   * Takes ownership of the memfd of an earlier process and completes the message that was being sent. Returns in one line why
   * it is unusable for a server with these settings, having closed it. What the numbers of peers and vectors in it stand for
   * is valid after this, but they may be any.
   */
  static adopt(fd: number, settings: HostServerSettings): LinkState | string {
    const kept = StateMemory.adopt(fd, KIND, VERSION);
    if (typeof kept === 'string') return kept;
    const problem = kept.size < SLOTS ? 'is too short' : problemOf(kept, settings);
    if (problem !== null) {
      kept.close();
      return `the stored state ${problem}`;
    }
    const { maxPeers } = settings;
    const state = new LinkState(kept.mapping, kept.offset, maxPeers, kept.fd, () => kept.close());
    const nonsense = state.#recover();
    if (nonsense === null) return state;
    state.close();
    return `the stored state has ${nonsense}`;
  }

  /** Whether the socket file has been created with the same permissions. */
  hasAccess({ mode, group }: HostServerSettings): boolean {
    const [wasMode, wasGroup] = this.#numbers.subarray(FIRST_NUMBER + KNOWN_TO_CLIENTS.length);
    return wasMode === mode && wasGroup === (group ?? -1);
  }

  setAccess(settings: HostServerSettings): void {
    this.#numbers.set(numbersOf(settings), FIRST_NUMBER);
  }

  /** A serial for the next client. */
  nextSerial(): number {
    let serial = this.#words[LAST_SERIAL]!;
    do serial = (serial % 0xffffffff) + 1;
    while (this.#ids().some((id) => this.serial(id) === serial));
    this.#words[LAST_SERIAL] = serial;
    return serial;
  }

  /** The serial of the client with this ID, 0 if there is none. */
  serial(id: number): number {
    return this.#words[slot(id)]!;
  }

  tenant(id: number): Tenant | null {
    const serial = this.serial(id);
    if (serial === 0) return null;
    const at = slot(id);
    const [pid, uid, gid] = [SLOT.pid, SLOT.uid, SLOT.gid].map((field) => this.#words[at + field]!);
    const since = this.#numbers[(SLOTS + id * SLOT_SIZE + SLOT_SINCE) / 8]!;
    return { serial, credentials: { pid: pid! | 0, uid: uid!, gid: gid! }, since: new Date(since) };
  }

  /** Whether any client has had this ID. Those that have left can still write to the memory. */
  isUsed(id: number): boolean {
    return this.#words[slot(id) + SLOT.used] !== 0;
  }

  get isAnyUsed(): boolean {
    return this.#ids().some((id) => this.isUsed(id));
  }

  /** Assigns a free ID to a client to which nothing has been sent. */
  join(id: number, { serial, credentials, since }: Tenant): void {
    const at = slot(id);
    const { pid, uid, gid } = credentials;
    this.#words.fill(0, this.#view(id, 0), this.#view(id + 1, 0));
    this.#words.set([pid, uid, gid, 0], at + SLOT.pid);
    this.#words[at + SLOT.used] = 1;
    this.#numbers[(SLOTS + id * SLOT_SIZE + SLOT_SINCE) / 8] = since.getTime();
    Atomics.store(this.#words, at, serial);
  }

  /** Frees an ID. */
  leave(id: number): void {
    Atomics.store(this.#words, slot(id), 0);
  }

  /** Whether INIT has been sent to a client. */
  isWelcomed(client: number): boolean {
    return this.#words[slot(client) + SLOT.welcomed] !== 0;
  }

  /** The serial of the client that was announced last to `client` with the ID `peer`; 0 if none, or if it is known to be gone. */
  seenSerial(client: number, peer: number): number {
    return this.#words[this.#view(client, peer)]!;
  }

  /** How many vectors of that were announced. */
  seenVectors(client: number, peer: number): number {
    return this.#words[this.#view(client, peer) + 1]!;
  }

  /**
   * Sends a message of at most 64 bytes to a client and records what it has seen. Returns false if the socket buffer is full.
   * Throws SystemCallError.
   */
  send(socket: number, client: number, { bytes, fd, about }: Message): boolean {
    const words = this.#words;
    words[SENDING.client] = client;
    words[SENDING.clientSerial] = this.serial(client);
    words[SENDING.peer] = about?.peer ?? INIT;
    words[SENDING.serial] = about?.serial ?? 0;
    words[SENDING.vectors] = about?.vectors ?? 0;
    words[SENDING.length] = bytes.length;
    this.#bytes.set(bytes, MESSAGE);
    this.#passed[0] = fd ?? -1;
    this.#record.reset();
    Atomics.store(words, SENDING.active, 1);
    try {
      const data = { address: this.#memory.address + this.#offset + MESSAGE, length: bytes.length };
      const sent = this.#record.send(socket, data, fd === null ? undefined : this.#control);
      if (sent === 0) return false;
      // A stream socket takes a message that fits into one buffer of the kernel as a whole or not at all.
      if (sent !== bytes.length) throw new Error(`${sent} of ${bytes.length} bytes sent`);
      this.#apply();
      return true;
    } finally {
      Atomics.store(words, SENDING.active, 0);
    }
  }

  close(): void {
    this.#close();
  }

  #ids(): number[] {
    return Array.from({ length: this.#maxPeers }, (_, id) => id);
  }

  /** The index of a view. */
  #view(client: number, peer: number): number {
    return (SLOTS + this.#maxPeers * SLOT_SIZE + (client * this.#maxPeers + peer) * VIEW_SIZE) / 4;
  }

  /** Records that the message has been sent. Doing so twice is the same as once. */
  #apply(): void {
    const words = this.#words;
    const client = words[SENDING.client]!;
    const peer = words[SENDING.peer]!;
    if (peer === INIT) {
      words[slot(client) + SLOT.welcomed] = 1;
      return;
    }
    const view = this.#view(client, peer);
    words[view] = words[SENDING.serial]!;
    words[view + 1] = words[SENDING.vectors]!;
  }

  /** Completes what was being done when the earlier process ended. Returns what the state has that none of ours can have. */
  #recover(): string | null {
    const words = this.#words;
    const serials = this.#ids()
      .map((id) => this.serial(id))
      .filter((serial) => serial !== 0);
    if (new Set(serials).size < serials.length) return 'two clients with one serial';
    for (const id of this.#ids()) {
      const since = this.tenant(id)?.since.getTime() ?? 0;
      if (!(Math.abs(since) <= MAX_TIME)) return `a client that connected at an impossible time`;
    }
    if (words[SENDING.active] === 0) return null;
    const [client, peer, length] = [SENDING.client, SENDING.peer, SENDING.length].map((at) => words[at]!);
    if (client! >= this.#maxPeers || (peer! >= this.#maxPeers && peer !== INIT) || length! > MESSAGE_SIZE) {
      return 'an impossible message';
    }
    const isSent = this.#record.length !== 0;
    if (isSent && this.serial(client!) === words[SENDING.clientSerial]) this.#apply();
    words[SENDING.active] = 0;
    return null;
  }
}

/** The index of an ID's slot. */
function slot(id: number): number {
  return (SLOTS + id * SLOT_SIZE) / 4;
}

/** Size of the data in bytes. The pages of views that are not used are not allocated. */
function sizeFor(maxPeers: number): number {
  return SLOTS + maxPeers * SLOT_SIZE + maxPeers * maxPeers * VIEW_SIZE;
}

function numbersOf(settings: HostServerSettings): number[] {
  return [...KNOWN_TO_CLIENTS.map((name) => settings[name]), settings.mode, settings.group ?? -1];
}

function hashOf({ sharedMemory }: HostServerSettings): Uint8Array {
  return createHash('sha256').update(JSON.stringify(sharedMemory)).digest();
}

/** Why a server with these settings cannot continue with the state. */
function problemOf({ mapping, offset, size }: StateMemory, settings: HostServerSettings): string | null {
  const numbers = new Float64Array(mapping.buffer, offset, SLOTS / 8);
  const changes = KNOWN_TO_CLIENTS.flatMap((name, i) => {
    const was = numbers[FIRST_NUMBER + i]!;
    return was === settings[name] ? [] : [`${name} ${was} instead of ${settings[name]}`];
  });
  const hash = new Uint8Array(mapping.buffer, offset + MEMORY_HASH, HASH_SIZE);
  if (Buffer.compare(hash, hashOf(settings)) !== 0) changes.push('other shared memory');
  if (changes.length > 0) return `is of a server with ${changes.join(', ')}`;
  return size === sizeFor(settings.maxPeers) ? null : `has ${size} bytes`;
}
