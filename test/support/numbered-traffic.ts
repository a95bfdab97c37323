import { randomInt } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { SystemCallError } from '@ivshmem/linux';
import type { PacketSocket } from '@ivshmem/linux/network';
import { ETHERTYPE } from './frames.ts';
import type { End, Rig } from './rig.ts';

const HEADER = 14;
/** {u32 token, u32 number}, then a filling, then a CRC-32 of all that. */
const SMALLEST = HEADER + 8 + 4;
const BURST = 25;
const INTERVAL = 2;
/** What a send fails with while the interface, or its carrier, is away, or its queue is full. */
const EXPECTED = ['ENETDOWN', 'ENODEV', 'ENXIO', 'ENOBUFS'];

/**
 * Frames in both directions that continue through every change of the ends: numbered, filled and with a checksum, so that each
 * one which arrives is known to have been sent, in that direction, and not to have arrived before.
 */
export class NumberedTraffic {
  readonly sent: [number, number] = [0, 0];
  readonly arrived: [number, number] = [0, 0];
  /** What no link may do, a line for each case. */
  readonly violations: string[] = [];
  readonly #rig: Rig;
  readonly #token = randomInt(2 ** 32);
  readonly #seen = [new Set<number>(), new Set<number>()] as const;
  readonly #sockets: (PacketSocket | undefined)[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(rig: Rig) {
    this.#rig = rig;
    this.#timer = setInterval(() => this.#pump(), INTERVAL);
  }

  /** Goes on with the interface that an end has now. */
  attach(end: End): void {
    this.#sockets[end]?.close();
    this.#sockets[end] = this.#rig.packetSocket(end);
  }

  /** Resolves when 250 more frames have arrived at either end. */
  async flows(): Promise<void> {
    const goal = this.arrived.map((count) => count + 250);
    const deadline = performance.now() + 10_000;
    while (this.arrived.some((count, end) => count < goal[end]!)) {
      if (performance.now() > deadline) throw new Error(`only ${this.arrived} of ${goal} frames arrived`);
      await new Promise((resolve) => setTimeout(resolve, INTERVAL));
    }
  }

  #pump(): void {
    for (const end of [0, 1] as const) {
      const socket = this.#sockets[end];
      if (socket === undefined) continue;
      try {
        for (let i = 0; i < BURST; i++) {
          socket.send(this.#frame(this.sent[end]));
          this.sent[end]++;
        }
      } catch (error) {
        if (!(error instanceof SystemCallError) || !EXPECTED.includes(error.code)) throw error;
        // It may have been sent all the same.
        this.sent[end]++;
      }
      for (let frame = socket.receive(0); frame !== null; frame = socket.receive(0)) this.#check(end, frame);
    }
  }

  #frame(number: number): Buffer {
    const frame = Buffer.alloc(SMALLEST + ((number * 7919) % 1400), number & 0xff);
    frame.set([2, 0, 0, 0, 0, 0x20, 2, 0, 0, 0, 0, 0x21]);
    frame.writeUInt16BE(ETHERTYPE, 12);
    frame.writeUInt32LE(this.#token, HEADER);
    frame.writeUInt32LE(number, HEADER + 4);
    frame.writeUInt32LE(crc32(frame.subarray(0, -4)), frame.length - 4);
    return frame;
  }

  #check(end: End, bytes: Uint8Array): void {
    const frame = Buffer.from(bytes);
    const fault = this.#faultOf(end, frame);
    if (fault === null) this.arrived[end]++;
    else this.violations.push(`at end ${end}: ${fault}: ${frame.subarray(0, 32).toString('hex')}`);
  }

  #faultOf(end: End, frame: Buffer): string | null {
    if (frame.length < SMALLEST) return `${frame.length} bytes`;
    if (crc32(frame.subarray(0, -4)) !== frame.readUInt32LE(frame.length - 4)) return 'damaged';
    if (frame.readUInt32LE(HEADER) !== this.#token) return 'from elsewhere';
    const number = frame.readUInt32LE(HEADER + 4);
    if (number >= this.sent[1 - end]!) return 'not sent yet';
    if (this.#seen[end].has(number)) return 'again';
    this.#seen[end].add(number);
    return null;
  }

  close(): void {
    clearInterval(this.#timer);
    for (const socket of this.#sockets) socket?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
