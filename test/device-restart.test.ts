import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { createMemfd } from '@ivshmem/linux/memory';
import { clearEventFd, createEventFd, EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { openServerPort, type Port, type PortEvent, type ServerPort } from '@ivshmem/transport';
import { pci } from '@ivshmem/transport/protocol';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Command, Region } from '../packages/device/src/vfio-user/messages.ts';
import { accessOf, u32s, VmmClient } from '../packages/device/src/vfio-user/vmm-client.test-support.ts';
import { Program } from './support/program.ts';
import { SupervisedProgram } from './support/supervised-program.ts';

// `ivshmem device` is killed at random moments, and its VMM and its peers notice nothing.

/** Set IVSHMEM_KILLS for more. */
const KILLS = Number(process.env.IVSHMEM_KILLS ?? 20);
const VECTORS = 4;
const READ_WRITE = 0x1000;
const { Register } = pci;

let directory: string;
let server: Program;
let device: SupervisedProgram;
let vmm: VmmClient | undefined;
let peer: Port | undefined;

const path = (name: string) => join(directory, name);

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-device-restart-'));
  server = await startServer();
  const argv = ['device', '-S', path('server'), '--wait', '--vfio-user', path('vfio')];
  device = new SupervisedProgram(path('notify'), argv);
  await device.untilReady(1);
});

afterEach(async () => {
  vmm?.close();
  vmm = undefined;
  peer?.close();
  peer = undefined;
  await device.stop();
  await server.stop();
  rmSync(path('vfio'));
  expect(readdirSync(directory)).toEqual([]);
  rmSync(directory, { recursive: true });
});

async function startServer(): Promise<Program> {
  const options = ['-S', path('server'), '-l', '1M', '-o', '64K', '-n', '3', '-V', `${VECTORS}`, '-P', '1'];
  const program = new Program(['server', '-F', '--json', ...options]);
  await program.line(({ type }) => type === 'listening');
  return program;
}

/** A peer of the host, and what its port reports. */
async function joinPeer(): Promise<{ port: ServerPort; events: PortEvent[] }> {
  const port = await new Promise<ServerPort>((resolve, reject) => {
    openServerPort(path('server'), mainPoller, (opened) =>
      opened instanceof Error ? reject(opened) : resolve(opened),
    );
  });
  peer = port;
  const events: PortEvent[] = [];
  port.onEvent((event) => events.push(event));
  return { port, events };
}

/** Resolves when a descriptor is readable. The service manager works meanwhile. */
function readable(fd: number): Promise<void> {
  return new Promise((resolve) => {
    mainPoller.add(fd, EPOLLIN, () => {
      mainPoller.remove(fd);
      resolve();
    });
  });
}

/** A VMM whose requests wait for their replies without blocking this thread. */
class Guest {
  readonly vmm = new VmmClient(path('vfio'));
  /** How long each request took, in ms. */
  readonly times: number[] = [];

  constructor() {
    vmm = this.vmm;
  }

  async ask(command: number, payload: Buffer = Buffer.alloc(0), fds: number[] = []): Promise<Buffer> {
    const [reply] = await this.askAll([{ command, payload, fds }]);
    return reply!;
  }

  /** Several at once. */
  async askAll(requests: { command: number; payload: Buffer; fds?: number[] }[]): Promise<Buffer[]> {
    const started = performance.now();
    const ids = requests.map(({ command, payload, fds = [] }) => this.vmm.post(command, payload, fds));
    const replies: Buffer[] = [];
    for (const [i, { command }] of requests.entries()) {
      await readable(this.vmm.socket.fd);
      const { errno, payload, fds } = this.vmm.reply(ids[i]!, command);
      expect([errno, fds]).toEqual([0, []]);
      replies.push(payload);
    }
    this.times.push(performance.now() - started);
    return replies;
  }

  async read(region: number, offset: number, count: number): Promise<Buffer> {
    return (await this.ask(Command.REGION_READ, accessOf(offset, region, count))).subarray(16);
  }

  async write(region: number, offset: number, bytes: Uint8Array): Promise<void> {
    const access = accessOf(offset, region, bytes.length);
    expect(await this.ask(Command.REGION_WRITE, Buffer.concat([access, bytes]))).toEqual(access);
  }

  register = async (offset: number) => (await this.read(Region.BAR0, offset, 4)).readUInt32LE();
  setRegister = (offset: number, value: number) => this.write(Region.BAR0, offset, u32s(value));

  async bind(vector: number): Promise<number> {
    const fd = createEventFd();
    await this.ask(Command.DEVICE_SET_IRQS, u32s(20, 0x24, 2, vector, 1), [fd]);
    return fd;
  }

  /** What a driver does to get interrupts. */
  async enableInterrupts(): Promise<void> {
    await this.write(Region.CONFIGURATION, 0x04, Buffer.from([0x06, 0x04]));
    await this.write(Region.CONFIGURATION, 0x5a, Buffer.from([0x03, 0x80]));
    await this.setRegister(Register.INTERRUPT_CONTROL, 1);
  }
}

/** Numbers that look random, the same in each run. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % limit;
  };
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;

describe('a device whose process is killed', () => {
  it(
    `answers each request once, with the registers as they were, ${KILLS} times`,
    async () => {
      const { port, events } = await joinPeer();
      const guest = new Guest();
      guest.vmm.version();
      await guest.enableInterrupts();
      const random = generator(1);
      const irqs: number[] = [];
      for (let vector = 0; vector < VECTORS; vector++) irqs.push(await guest.bind(vector));
      const ram = createMemfd('ram', 4096);
      const map = { command: Command.DMA_MAP, payload: Buffer.alloc(32) };
      const model = { state: 0, control: 1, oneShot: 0, memory: Buffer.alloc(0x800) };
      await guest.write(Region.BAR2, READ_WRITE, model.memory);
      const steps: (() => Promise<void>)[] = [
        async () => {
          model.state = random(1 << 24) + 1;
          await guest.setRegister(Register.STATE, model.state);
        },
        async () => {
          expect(await guest.register(Register.STATE)).toBe(model.state);
          expect((await guest.read(Region.BAR2, 0, 4)).readUInt32LE()).toBe(model.state);
          expect(port.peerState(0)).toBe(model.state);
        },
        async () => {
          const offset = random(0x600);
          const bytes = Buffer.from(Array.from({ length: 1 + random(0x200) }, () => random(256)));
          model.memory.set(bytes, offset);
          await guest.write(Region.BAR2, READ_WRITE + offset, bytes);
        },
        async () => {
          expect((await guest.read(Region.BAR2, READ_WRITE, 0x800)).equals(model.memory)).toBe(true);
        },
        async () => {
          model.oneShot = 0;
          await guest.write(Region.CONFIGURATION, 0x43, Buffer.of(model.oneShot));
          expect([...(await guest.read(Region.CONFIGURATION, 0x40, 4))]).toEqual([
            0x09,
            0x58,
            0x18,
            model.oneShot,
          ]);
        },
        async () => {
          expect(await guest.register(Register.INTERRUPT_CONTROL)).toBe(model.control);
          expect(await guest.register(Register.ID)).toBe(0);
        },
        // An interrupt that is asked for comes.
        async () => {
          const vector = random(VECTORS);
          clearEventFd(irqs[vector]!);
          await guest.setRegister(Register.DOORBELL, vector);
          await readable(irqs[vector]!);
        },
        async () => {
          const vector = random(VECTORS);
          clearEventFd(irqs[vector]!);
          port.ring(0, vector);
          await readable(irqs[vector]!);
        },
        async () => {
          const vector = random(VECTORS);
          closeFd(irqs[vector]!);
          irqs[vector] = await guest.bind(vector);
        },
        async () => {
          await guest.askAll([map, { ...map, fds: [ram] }, map, { ...map, fds: [ram] }, map]);
        },
        async () => {
          if (random(4) > 0) return;
          await guest.ask(Command.DEVICE_RESET);
          Object.assign(model, { state: 0, control: 0 });
          expect(await guest.register(Register.STATE)).toBe(0);
          expect(await guest.register(Register.INTERRUPT_CONTROL)).toBe(0);
          await guest.enableInterrupts();
          model.control = 1;
        },
      ];
      const before = guest.times.length;
      let kills = 0;
      let killing = true;
      const killer = (async () => {
        for (; kills < KILLS; kills++) {
          // Sometimes before it has taken over.
          const started = device.ready;
          if (random(4) > 0) await device.untilReady(started + (kills === 0 ? 0 : 1));
          await new Promise((resolve) => setTimeout(resolve, random(100)));
          device.kill();
        }
        killing = false;
      })();
      while (killing) await steps[random(steps.length)]!();
      await killer;
      for (const step of steps) await step();
      // Not one reply too many.
      expect(guest.vmm.socket.receive(new Uint8Array(1), [])).toBe(-1);
      expect(events).toEqual([]);
      const names = device.keeper.kept.map(({ name }) => name.split('/').slice(2).join('/'));
      expect(names.filter((name) => /^vmm\/\d+$/.test(name))).toHaveLength(VECTORS);
      const gaps = guest.times.slice(before).filter((time) => time > 50);
      const [middle, most] = [median(gaps), Math.max(...gaps)].map(Math.round);
      console.log(
        `${kills} kills, ${guest.times.length} requests; gap of a register access: median ${middle} ms, maximum ${most} ms`,
      );
      for (const fd of irqs) closeFd(fd);
      closeFd(ram);
    },
    60_000 + KILLS * 10_000,
  );
});
