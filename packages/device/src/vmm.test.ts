import { writeSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { closeFd, setNonBlocking } from '@ivshmem/linux';
import { clearEventFd } from '@ivshmem/linux/wait';
import { ServerConnection } from '@ivshmem/transport';
import { pci } from '@ivshmem/transport/protocol';
import { describe, expect, it } from 'vitest';
import { inState, logLine, openFds, useDevices } from './device.test-support.ts';
import type { Device } from './device.ts';
import { Command, Region } from './vfio-user/messages.ts';
import { accessOf, u32s, type VmmClient } from './vfio-user/vmm-client.test-support.ts';

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
      Buffer.concat([accessOf(pci.Register.STATE, Region.BAR0, 4), u32s(5)]),
      [],
      0x10,
    );
    expect(vmm.readRegister(pci.Register.STATE)).toBe(5);
  });

  it('that leaves its replies unread is not read from, and gets all of them later', async () => {
    fixture.serve();
    const device = await fixture.device();
    const vmm = fixture.vmm();
    vmm.start();
    const access = accessOf(0, Region.BAR2, 0x100000);
    const ids = Array.from({ length: 20 }, () => vmm.post(Command.REGION_READ, access));
    while (device.stats().memoryReads === 0) await new Promise((resolve) => setImmediate(resolve));
    for (const id of ids) expect(vmm.reply(id, Command.REGION_READ).payload).toHaveLength(16 + 0x100000);
    expect(vmm.readRegister(pci.Register.ID)).toBe(0);
  });

  it('that closes with unread replies counts as disconnected', async () => {
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

  it('that sends nothing is disconnected after five seconds', async () => {
    fixture.serve();
    const device = await fixture.device();
    const vmm = fixture.vmm();
    expect(await logLine(device, /was disconnected/)).toMatch(/did not send VERSION for 5000 ms/);
    vmm.close();
  });

  it('is one at a time: others are rejected, however many', async () => {
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
    expect(vmm.readRegister(pci.Register.MAXIMUM_PEERS)).toBe(3);
  });
});

describe('a peer', () => {
  it('that makes its doorbells block delays no access of the guest, and keeps no device from ending', async () => {
    fixture.serve();
    const device = await fixture.device();
    const vmm = fixture.vmm();
    vmm.start();
    const peer = new BlockingPeer(fixture.serverPath);
    await peer.joined(device, vmm);
    peer.block();
    const begin = performance.now();
    // These rings block if they are made by write(2), and so does the state, of which all peers are notified.
    for (let i = 0; i < 200; i++) vmm.writeRegister(pci.Register.DOORBELL, 1 << 16);
    vmm.writeRegister(pci.Register.STATE, 3);
    // QEMU gives up on a device that takes five seconds for a single one.
    expect(performance.now() - begin).toBeLessThan(5000);
    expect(device.stats().doorbells).toBeGreaterThanOrEqual(200);
    // The state becomes 0, which rings the peer.
    vmm.close();
    await device.close();
    peer.close();
  });
});

describe('a VMM', () => {
  it('that connects and disconnects in a loop causes a bounded number of reports, and the last state is right', async () => {
    fixture.serve();
    const device = await fixture.device();
    let reported = 0;
    device.state$.subscribe(() => reported++);
    const lines: string[] = [];
    device.log$.subscribe((text) => lines.push(text));
    const begin = performance.now();
    for (let i = 0; i < 500; i++) {
      const vmm = fixture.vmm();
      vmm.version();
      vmm.close();
    }
    const leftOut = await logLine(device, /\d+ lines before this one were left out/);
    expect(leftOut).toMatch(/is gone; the device waits for the next VMM/);
    await inState(device, 'waiting');
    const seconds = Math.ceil((performance.now() - begin) / 1000);
    expect(device.stats().attached).toBe(500);
    expect(lines.length).toBeLessThanOrEqual(33 + seconds);
    expect(reported).toBeLessThanOrEqual(34 + seconds);
  });

  it('whose MSI-X eventfds block delays neither its device nor the end of it', async () => {
    fixture.serve();
    const devices = [await fixture.device(), await fixture.device()];
    const [hostile, other] = [fixture.vmm(0), fixture.vmm(1)];
    hostile.start();
    other.start();
    const irqs = hostile.enableMsix(4);
    hostile.writeRegister(pci.Register.INTERRUPT_CONTROL, 1);
    for (const fd of irqs) makeBlocking(fd);
    const interrupts = () => devices[0]!.stats().interrupts;
    for (let i = 0; i < 20; i++) {
      const before = interrupts();
      do {
        other.writeRegister(pci.Register.DOORBELL, 1);
        await new Promise((resolve) => setImmediate(resolve));
      } while (interrupts() === before);
    }
    expect(hostile.readRegister(pci.Register.MAXIMUM_PEERS)).toBe(3);
    await devices[0]!.close();
  });
});

/** Brings the counter to its limit, and takes O_NONBLOCK off: what any holder of an eventfd can do. */
function makeBlocking(fd: number): void {
  setNonBlocking(fd, true);
  clearEventFd(fd);
  writeSync(fd, new Uint8Array(new BigUint64Array([0xfffffffffffffffen]).buffer));
  setNonBlocking(fd, false);
}

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
      vmm.writeRegister(pci.Register.DOORBELL, 1 << 16);
      if (device.stats().doorbellsWithoutEffect === doorbellsWithoutEffect) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  block(): void {
    for (const fd of this.#own) makeBlocking(fd);
  }

  close(): void {
    this.#connection.close();
    for (const fd of this.#fds) closeFd(fd);
  }
}
