import { dataRanges } from '@ivshmem/linux/memory';
import { pci } from '@ivshmem/transport/protocol';
import { describe, expect, it } from 'vitest';
import { inState, logLine, tableEntry, useDevices } from './device.test-support.ts';
import { Region } from './vfio-user/messages.ts';

const fixture = useDevices();
const SECTION = 0x10000;
const MEMORY = 0x100000;
const OUTPUT = MEMORY - 3 * SECTION;
const SECRET = Buffer.from('what the first VM has sent');

const sources = [
  ['a sealed memfd', { kind: 'memfd', seal: true }, true],
  ['a memfd without seals', { kind: 'memfd', seal: false }, false],
  ['a file', { kind: 'directory', path: '/dev/shm' }, false],
] as const;

describe.each(sources)('the next VM at the socket of a device, in %s,', (_, sharedMemory, holes) => {
  it('finds the output section cleared, and nothing else changed', async () => {
    fixture.serve({ sharedMemory });
    const devices = [await fixture.device(), await fixture.device()];
    const [first, other] = [fixture.vmm(0), fixture.vmm(1)];
    const bar = first.start();
    other.start();
    const memory = new Uint8Array(first.map(bar)[0]!.buffer);
    const write = (at: number) => memory.set(SECRET, at - 0x1000);
    // The R/W section, the beginning and the end of its own section, and the section behind it.
    for (const at of [0x2000, OUTPUT, OUTPUT + SECTION - SECRET.length, OUTPUT + SECTION]) write(at);
    first.writeRegister(pci.Register.STATE, 3);

    // A reset keeps it, and so does the VMM's end: peers may still be reading.
    first.systemReset();
    const gone = logLine(devices[0]!, /is gone/);
    first.close();
    await gone;
    const read = (at: number) => other.read(Region.BAR2, at, SECRET.length);
    expect(read(OUTPUT)).toEqual(SECRET);
    expect(tableEntry(other, 0)).toBe(0);

    const next = fixture.vmm(0);
    const { fd } = next.start();
    await inState(devices[0]!, 'attached');
    // Its memory is released, unless it might not be available again. A read takes some.
    const resident = [...dataRanges(fd, OUTPUT, OUTPUT + SECTION)];
    expect(resident.length > 0).toBe(!holes);
    const section = next.read(Region.BAR2, OUTPUT, SECTION);
    expect(section.equals(Buffer.alloc(SECTION))).toBe(true);
    expect([0x2000, OUTPUT + SECTION].map(read)).toEqual([SECRET, SECRET]);
  });
});
