import { writeSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { closeFd, EPOLLIN, Epoll, setNonBlocking, type UnixSocket } from '@ivshmem/linux';
import { ServerConnection } from '@ivshmem/transport';
import { describe, expect, it } from 'vitest';
import { inState, logLine, openFds, useDevices } from './device.test-support.ts';
import type { Device } from './device.ts';
import { Register } from './device-model.ts';
import { Command, Region } from './vfio-user-messages.ts';
import { accessOf, u32s, type VmmClient } from './vmm-client.test-support.ts';

const fixture = useDevices();

describe('a VMM', () => {
  it('may send a byte at a time', async () => {
    fixture.serve();
    await fixture.device();
    const vmm = fixture.vmm();
    const request = Buffer.concat([u32s(Command.VERSION << 16, 20, 0, 0), u32s(0)]);
    for (const byte of request) vmm.socket.send(Uint8Array.of(byte));
    // Without room for capabilities, the reply has none.
    expect(vmm.reply(0, Command.VERSION).payload).toEqual(u32s(0));
  });

  it('gets no reply to what it wants none for', async () => {
    fixture.serve();
    await fixture.device();
    const vmm = fixture.vmm();
    vmm.start();
    vmm.post(
      Command.REGION_WRITE,
      Buffer.concat([accessOf(Register.STATE, Region.BAR0, 4), u32s(5)]),
      [],
      0x10,
    );
    expect(vmm.readRegister(Register.STATE)).toBe(5);
  });

  it('that leaves its replies unread is read no further, and gets all of them when it reads', async () => {
    fixture.serve();
    const device = await fixture.device();
    const vmm = fixture.vmm();
    vmm.start();
    const access = accessOf(0, Region.BAR2, 0x100000);
    const ids = Array.from({ length: 20 }, () => vmm.post(Command.REGION_READ, access));
    while (device.stats().memoryReads === 0) await new Promise((resolve) => setImmediate(resolve));
    for (const id of ids) expect(vmm.reply(id, Command.REGION_READ).payload).toHaveLength(16 + 0x100000);
    expect(vmm.readRegister(Register.ID)).toBe(0);
  });

  it('that goes with replies unread has just gone', async () => {
    fixture.serve();
    const device = await fixture.device();
    const before = openFds();
    const vmm = fixture.vmm();
    vmm.start();
    const line = logLine(device, /is gone/);
    for (let i = 0; i < 5; i++) vmm.post(Command.REGION_READ, accessOf(0, Region.BAR2, 0x100000));
    vmm.close();
    await line;
    await inState(device, 'waiting');
    expect(openFds()).toBe(before);
  });

  it('that says nothing is disconnected after five seconds, and keeps no place meanwhile but its own', async () => {
    fixture.serve();
    const device = await fixture.device();
    const vmm = fixture.vmm();
    expect(await logLine(device, /was disconnected/)).toMatch(/did not introduce itself for 5000 ms/);
    vmm.close();
  });

  it('is one at a time: others are turned away, however many', async () => {
    fixture.serve();
    const device = await fixture.device();
    const vmm = fixture.vmm();
    vmm.start();
    const before = openFds();
    const path = join(fixture.directory, 'vfio-0');
    for (let i = 0; i < 100; i++) {
      await new Promise<void>((resolve) =>
        connect(path)
          .on('error', () => {})
          .on('close', () => resolve())
          .resume(),
      );
    }
    expect(openFds()).toBe(before);
    expect(device.stats().refused).toBe(100);
    expect(vmm.readRegister(Register.MAXIMUM_PEERS)).toBe(3);
  });
});

describe('a peer', () => {
  it('that makes its doorbells block stalls nobody for long, and keeps nobody from ending', async () => {
    fixture.serve();
    const device = await fixture.device();
    const vmm = fixture.vmm();
    vmm.start();
    const peer = new BlockingPeer(fixture.serverPath);
    await peer.joined(device, vmm);
    peer.block();
    const begin = performance.now();
    const id = vmm.post(
      Command.REGION_WRITE,
      Buffer.concat([accessOf(Register.DOORBELL, Region.BAR0, 4), u32s(1 << 16)]),
    );
    await peer.readable(vmm.socket);
    expect(vmm.reply(id, Command.REGION_WRITE).flags).toBe(1);
    // More than five seconds, and QEMU would be stalled for good.
    expect(performance.now() - begin).toBeLessThan(5000);
    vmm.writeRegister(Register.STATE, 3);
    peer.block();
    // Its state goes to 0, which rings the peer.
    vmm.close();
    await device.close();
    peer.close();
  });
});

/** A client of the host server with doorbells that swallow a thread. */
class BlockingPeer {
  readonly #connection: ServerConnection;
  readonly #fds: number[] = [];
  readonly #own: number[] = [];

  constructor(path: string) {
    this.#connection = ServerConnection.connect(path);
  }

  /** Resolves when the device can ring this peer. */
  async joined(device: Device, vmm: VmmClient): Promise<void> {
    while (this.#own.length < 4) {
      const received = this.#connection.read();
      if (received === 'end') throw new Error('the server is gone');
      if (received === 'wait') {
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      if (received.fd !== null) this.#fds.push(received.fd);
      if (received.message.type === 'event-fd' && received.message.id === 1) this.#own.push(received.fd!);
    }
    for (;;) {
      const { doorbellsWithoutEffect } = device.stats();
      vmm.writeRegister(Register.DOORBELL, 1 << 16);
      if (device.stats().doorbellsWithoutEffect === doorbellsWithoutEffect) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  block(): void {
    for (const fd of this.#own) {
      setNonBlocking(fd, true);
      try {
        writeSync(fd, new Uint8Array(new BigUint64Array([0xfffffffffffffffen - 1n]).buffer));
        for (;;) writeSync(fd, new Uint8Array(new BigUint64Array([1n]).buffer));
      } catch {
        // EAGAIN: the counter is at its limit.
      }
      setNonBlocking(fd, false);
    }
  }

  /** Resolves when there is something to read; the event loop turns meanwhile. */
  async readable(socket: UnixSocket): Promise<void> {
    using epoll = new Epoll();
    epoll.add(socket.fd, EPOLLIN, () => {});
    while (epoll.wait(0) === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  close(): void {
    this.#connection.close();
    for (const fd of this.#fds) closeFd(fd);
  }
}
