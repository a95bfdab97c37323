import { readFileSync } from 'node:fs';
import type { PacketSocket } from '@ivshmem/linux/network';

/** For local experiments, IEEE 802. */
export const ETHERTYPE = 0x88b5;
const VLAN = 0x8100;
/** What certainly fits the buffer of a packet socket, including the kernel's overhead. */
const CHUNK_BYTES = 150_000;
const BOOKKEEPING = 1024;

/** A frame of `size` bytes, 14 or more, with a pattern of its own; tagged for VLAN 5 if `vlan` is true. */
export function numberedFrame(size: number, number: number, vlan = false): Buffer {
  const frame = Buffer.alloc(size);
  frame.set([2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 0x11]);
  frame.writeUInt16BE(vlan ? VLAN : ETHERTYPE, 12);
  let at = 14;
  if (vlan) {
    frame.writeUInt16BE(5, 14);
    frame.writeUInt16BE(ETHERTYPE, 16);
    at = 18;
  }
  for (let i = at; i < size; i++) frame[i] = (number * 31 + i * 7 + (i >> 8)) & 0xff;
  if (size >= at + 4) frame.writeUInt32LE(number, at);
  return frame;
}

/** Sends all frames from one socket, and throws unless they arrive at the other: each once, unchanged, in order. */
export function expectDelivery(from: PacketSocket, to: PacketSocket, frames: readonly Buffer[]): void {
  let end = 0;
  for (let start = 0; start < frames.length; start = end) {
    let bytes = 0;
    do bytes += 2 * frames[end++]!.length + BOOKKEEPING;
    while (end < frames.length && bytes + 2 * frames[end]!.length + BOOKKEEPING < CHUNK_BYTES);
    const chunk = frames.slice(start, end);
    for (const frame of chunk) from.send(frame);
    for (const [index, frame] of chunk.entries()) {
      const arrived = to.receive(5000);
      const what = `frame ${start + index} of ${frame.length} bytes`;
      if (arrived === null) throw new Error(`${what} did not arrive`);
      if (!frame.equals(arrived)) {
        const [a, b] = [Buffer.from(arrived), frame].map((bytes) => bytes.subarray(0, 32).toString('hex'));
        throw new Error(`${what}: ${arrived.length} bytes arrived instead: ${a}, not ${b}`);
      }
    }
  }
  const further = to.receive(0);
  if (further !== null) throw new Error(`a frame of ${further.length} bytes arrived that was not sent`);
}

/** Frames that an interface of the calling thread's network namespace has dropped. Source: proc_pid_net(5). */
export function interfaceDrops(name: string): { readonly received: number; readonly sent: number } {
  const line = readFileSync('/proc/thread-self/net/dev', 'utf8')
    .split('\n')
    .find((text) => text.trim().startsWith(`${name}:`))!;
  const numbers = line
    .slice(line.indexOf(':') + 1)
    .trim()
    .split(/\s+/)
    .map(Number);
  return { received: numbers[3]!, sent: numbers[11]! };
}
