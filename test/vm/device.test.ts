import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeVm } from './requirements.ts';
import type { Job } from './src/guest.ts';
import { guestProgram, VmRig } from './src/rig.ts';

// An ivshmem v2 device as a Linux guest under stock QEMU sees it.

let rig: VmRig;
beforeAll(async () => {
  rig = await VmRig.start({ guests: 2 });
});
afterAll(() => rig?.close());

const CONFIG = '/sys/bus/pci/devices/0000:00:02.0/config';

/** The configuration space, in hexadecimal digits. */
async function configuration(guest: 0 | 1): Promise<string> {
  return (await rig.guests[guest]!.run(`hexdump -v -e '1/1 "%02x"' ${CONFIG}`)).trim();
}

describeVm('the device in a guest', () => {
  it('has the configuration space of the specification, byte for byte', async () => {
    const [space, other] = await Promise.all([configuration(0), configuration(1)]);
    expect(space).toHaveLength(512);
    const bytes = Buffer.from(space, 'hex');
    // Firmware and kernel have placed the BARs: what counts is their type.
    const bars = [0x10, 0x14, 0x18, 0x1c].map((offset) => bytes.readUInt32LE(offset));
    expect(bars.map((bar) => bar & 0xf)).toEqual([0, 0, 0xc, expect.any(Number)]);
    expect(bars[0]! & 0xff0).toBe(0);
    const expected = Buffer.alloc(256);
    expected.writeUInt32LE(0x4106110a, 0x00);
    // The firmware has switched memory on.
    expected.writeUInt16LE(bytes.readUInt16LE(0x04) & 0x0506, 0x04);
    expected.writeUInt16LE(0x0010, 0x06);
    expected.writeUInt32LE(0xff000100, 0x08);
    bytes.copy(expected, 0x10, 0x10, 0x20);
    expected.writeUInt32LE(0x4106110a, 0x2c);
    expected[0x34] = 0x40;
    expected[0x3c] = bytes[0x3c]!;
    expected.set([0x09, 0x58, 0x18, 0x00], 0x40);
    expected.writeUInt32LE(0x1000, 0x44);
    expected.writeBigUInt64LE(0x1ff000n, 0x48);
    expected.writeBigUInt64LE(0x100000n, 0x50);
    expected.set([0x11, 0x00, 0x01, 0x00], 0x58);
    expected.writeUInt32LE(0x00000001, 0x5c);
    expected.writeUInt32LE(0x00000801, 0x60);
    expect(bytes.toString('hex')).toBe(expected.toString('hex'));
    expect(other).toBe(space);
  });

  it('accepts one-shot mode in its privileged control byte, and no other write to the capability', async () => {
    const guest = rig.guests[0]!;
    const write = (offset: number, value: string) =>
      guest.run(`printf '\\x${value}' | dd of=${CONFIG} bs=1 seek=${offset} conv=notrunc 2> /dev/null`);
    const before = await configuration(0);
    await write(0x43, 'ff');
    expect((await configuration(0)).slice(0x40 * 2, 0x44 * 2)).toBe('09581801');
    await write(0x44, 'ff');
    await write(0x48, 'ff');
    await write(0x50, 'ff');
    await write(0x43, '00');
    expect(await configuration(0)).toBe(before);
  });

  it('has sizes of BARs that hold what the capability promises', async () => {
    const sizes = await rig.guests[0]!.run(
      `cd $(dirname ${CONFIG}); for bar in 0 1 2; do stat -c %s resource$bar; done`,
    );
    expect(sizes.trim().split('\n').map(Number)).toEqual([0x1000, 0x1000, 0x400000]);
  });

  it('has the registers and the state table of the specification', async () => {
    for (const [id, guest] of rig.guests.entries()) {
      expect(JSON.parse(await guest.run(guestProgram('vm/dist/guest/registers.js')))).toEqual({
        id,
        maximumPeers: 2,
        idWritten: id,
        maximumPeersWritten: 2,
        interruptControl: [0, 1, 0],
        state: [0, 0x12345678],
        tableAfterState: 0x12345678,
        tableWritten: [true, true],
        stateAfterTable: 0x12345678,
        stateReset: 0,
        tableAfterReset: 0,
        unknownRead: [0, 0, 0, 0],
        unknownWritten: [0, 0],
        stateAfterByteWrite: 0,
      });
    }
  });
});

describeVm('two ports, each in a guest', () => {
  const ports: Job[] = [];
  /** Has a port do something; resolves with the result. */
  const tell = async (port: 0 | 1, command: string): Promise<unknown> => {
    const from = ports[port]!.output.all.length;
    await rig.guests[port]!.run(`echo ${command} > /tmp/commands`);
    return (await ports[port]!.output.wait('answer', ({ done }) => done === command, from)).result;
  };
  const interrupt = (port: 0 | 1, vector: number, from: number) =>
    ports[port]!.output.wait('interrupt', (line) => line.interrupt === vector, from);
  const mark = (port: 0 | 1) => ports[port]!.output.all.length;

  beforeAll(async () => {
    for (const [n, guest] of rig.guests.entries()) {
      const program = guestProgram('vm/dist/guest/port.js', 'vfio');
      ports[n] = guest.job(`mkfifo /tmp/commands; ${program} 0<> /tmp/commands`);
    }
    await Promise.all(ports.map((port) => port.output.wait('port', ({ open }) => open)));
  });
  afterAll(async () => {
    await Promise.all(rig.guests.map((guest) => guest.run('echo quit > /tmp/commands')));
    expect(await Promise.all(ports.map(({ exited }) => exited))).toEqual([0, 0]);
  });

  it('know their IDs and the layout', () => {
    for (const [id, port] of ports.entries()) {
      expect(port.output.all[0]).toMatchObject({
        id,
        maxPeers: 2,
        protocol: 1,
        vectors: 2,
        readWrite: 0x1ff000,
      });
    }
  });

  it.each([
    [0, 1, 0],
    [0, 1, 1],
    [1, 0, 0],
    [1, 0, 1],
    [0, 0, 1],
    [1, 1, 1],
  ] as const)('port %i rings port %i on vector %i, by MSI-X', async (from, to, vector) => {
    const before = mark(to);
    expect(await tell(from, `ring ${to} ${vector}`)).toBe(true);
    await interrupt(to, vector, before);
  });

  it('see each other’s state, and are interrupted when it changes', async () => {
    for (const [from, to] of [
      [0, 1],
      [1, 0],
    ] as const) {
      const before = mark(to);
      expect(await tell(from, 'state 3000000000')).toBe(3000000000);
      await interrupt(to, 0, before);
      expect(await tell(to, `peer ${from}`)).toBe(3000000000);
      expect(await tell(from, 'state 0')).toBe(0);
    }
  });

  it('see each other’s output sections', async () => {
    for (const [from, to] of [
      [0, 1],
      [1, 0],
    ] as const) {
      await tell(from, `write 1048575 ${0x40 + from}`);
      expect(await tell(to, `read ${from} 1048575`)).toBe(0x40 + from);
    }
  });

  it('cannot ring a missing peer or vector', async () => {
    expect(await tell(0, 'ring 2 0')).toBe(false);
    expect(await tell(0, 'ring 1 2')).toBe(false);
  });
});
