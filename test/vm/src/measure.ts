import type { Device } from '@ivshmem/device';
import type { Guest } from './guest.ts';
import { receive, send } from './transfer.ts';

/** Round trips of a ping, in ms. */
export interface PingTimes {
  readonly sent: number;
  readonly received: number;
  readonly p50: number;
  readonly p99: number;
}

/** Pings an address from a guest until it is answered, then so many times. */
export async function ping(guest: Guest, address: string, count: number): Promise<PingTimes> {
  await guest.run(`until ping -c 1 -W 1 ${address}; do true; done`);
  const text = await guest.run(`ping -c ${count} -i 0.02 -W 5 ${address}`);
  const times = [...text.matchAll(/time=([\d.]+) ms/g)].map(([, time]) => Number(time)).sort((a, b) => a - b);
  const at = (part: number) => times[Math.min(Math.floor(part * times.length), times.length - 1)]!;
  return { sent: count, received: times.length, p50: at(0.5), p99: at(0.99) };
}

/** TCP from one guest to another: bytes per second, while `bytes` zeros are sent. */
export async function tcpRate(from: Guest, to: Guest, address: string, bytes: number): Promise<number> {
  const receiver = await receive(to, 'wc -c');
  const begin = performance.now();
  const sender = send(from, `head -c ${bytes} /dev/zero`, address);
  await Promise.all([sender.exited, receiver.exited]);
  const arrived = Number(receiver.output.text);
  if (arrived !== bytes) throw new Error(`${arrived} of ${bytes} bytes have arrived`);
  return (bytes * 1000) / (performance.now() - begin);
}

/** Accesses of a guest to its device that had to be handled outside of it. */
export function trappedAccesses(device: Device): number {
  const { registerReads, registerWrites, memoryReads, memoryWrites } = device.stats();
  return registerReads + registerWrites + memoryReads + memoryWrites;
}

/** Frames that a guest's interface has sent and received. */
export async function framesOf(guest: Guest, name: string): Promise<number> {
  const text = await guest.run(`cat /sys/class/net/${name}/statistics/[rt]x_packets`);
  return text
    .trim()
    .split('\n')
    .reduce((sum, frames) => sum + Number(frames), 0);
}
