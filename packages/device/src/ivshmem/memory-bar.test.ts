import { Epoll } from '@ivshmem/linux/wait';
import { Loopback, LoopbackPort } from '@ivshmem/transport';
import { memoryLayout } from '@ivshmem/transport/protocol';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MemoryBar, mappedAreas } from './memory-bar.ts';

describe('mappedAreas', () => {
  const layout = memoryLayout(0x10000, 3, 0x2000);
  const rest = { offset: 0x1000, size: 0x9000 };

  it('are everything but the state table', () => {
    expect(mappedAreas(layout, 1, false)).toEqual([{ offset: 0x1000, size: 0xf000 }]);
  });

  it('are, with isolate, the R/W section and its own output section', () => {
    expect([0, 1, 2].map((id) => mappedAreas(layout, id, true))).toEqual([
      [{ offset: 0x1000, size: 0xb000 }],
      [rest, { offset: 0xc000, size: 0x2000 }],
      [rest, { offset: 0xe000, size: 0x2000 }],
    ]);
  });

  it('leave out sections that do not exist', () => {
    expect(mappedAreas(memoryLayout(0x1000, 2, 0), 1, false)).toEqual([]);
    expect(mappedAreas(memoryLayout(0x3000, 2, 0), 1, true)).toEqual([{ offset: 0x1000, size: 0x2000 }]);
    expect(mappedAreas(memoryLayout(0x5000, 2, 0x2000), 1, true)).toEqual([{ offset: 0x3000, size: 0x2000 }]);
  });

  const layouts = [
    memoryLayout(0x400000, 2, 0x100000),
    memoryLayout(0x201000, 2, 0x100000),
    memoryLayout(0x100000, 3, 0x10000),
    memoryLayout(0x10000, 3, 0x2000),
    memoryLayout(0x21000, 2, 0x10000),
    memoryLayout(0x1000, 2, 0),
    memoryLayout(0x40000, 2, 0),
  ];
  const cases = layouts.flatMap((memory) =>
    [4096, 16384, 65536].flatMap((page) =>
      [false, true].flatMap((isolate) => [0, 1].map((id) => ({ memory, page, isolate, id }))),
    ),
  );
  it.each(cases)('are whole pages, as many as may be mapped: %j', ({ memory, page, isolate, id }) => {
    const { readWriteOffset, outputOffset, outputSectionSize, size } = memory;
    /** Whether the guest may write a byte itself. */
    const mayMap = (at: number) => {
      if (at < readWriteOffset || at >= size) return false;
      const peer = Math.floor((at - outputOffset) / outputSectionSize);
      return !isolate || at < outputOffset || peer === id;
    };
    const areas = mappedAreas(memory, id, isolate, page);
    const mapped = new Set<number>();
    for (const area of areas) {
      expect([area.offset % page, area.size % page]).toEqual([0, 0]);
      for (let at = area.offset; at < area.offset + area.size; at += page) mapped.add(at);
    }
    expect(mapped.size).toBe(areas.reduce((sum, area) => sum + area.size / page, 0));
    // Rights change at multiples of 4096 only.
    for (let at = 0; at < size; at += page) {
      const parts = Array.from({ length: page / 4096 }, (_, i) => mayMap(at + i * 4096));
      expect([at, mapped.has(at)]).toEqual([at, parts.every(Boolean)]);
    }
  });

  it('leave only the first page to be trapped if sections begin at a page of 64 KiB', () => {
    const { outputOffset, size } = memoryLayout(0x400000, 2, 0x100000);
    expect(outputOffset % 65536).toBe(0);
    expect(mappedAreas(memoryLayout(0x400000, 2, 0x100000), 1, true, 65536)).toEqual([
      { offset: 65536, size: outputOffset - 65536 },
      { offset: size - 0x100000, size: 0x100000 },
    ]);
  });
});

describe('BAR 2, trapped', () => {
  let loopback: Loopback;
  let epoll: Epoll;
  let ports: LoopbackPort[];
  let bar: MemoryBar;

  // state table 0 | R/W 0x1000 | output 0 0x2000 | output 1 0x3000 | end 0x4000; the BAR has 0x4000.
  beforeEach(() => {
    loopback = new Loopback({ outputSectionSize: 0x1000, readWriteSize: 0x1000 });
    epoll = new Epoll();
    ports = loopback.ends.map((end) => new LoopbackPort(end, epoll));
    bar = new MemoryBar(ports[1]!);
  });

  afterEach(() => {
    for (const port of ports) port.close();
    epoll.close();
    loopback.close();
  });

  const read = (offset: number, length: number) => {
    const bytes = Buffer.alloc(length, 0xee);
    bar.read(offset, bytes);
    return bytes.toString('hex');
  };

  it('shows the state table at every width, and keeps it', () => {
    ports[0]!.state = 0x44332211;
    ports[1]!.state = 0x88776655;
    bar.write(0, Buffer.alloc(0x1000, 0xff));
    expect([read(0, 4), read(4, 4), read(0, 8), read(1, 1), read(6, 2), read(3, 3), read(8, 4)]).toEqual([
      '11223344',
      '55667788',
      '1122334455667788',
      '22',
      '7788',
      '445566',
      '00000000',
    ]);
  });

  it.each([1, 2, 4, 8, 3, 7, 64])('writes and reads %i bytes in its own section, at any offset', (length) => {
    const own = new Uint8Array(ports[1]!.output!.buffer);
    for (const offset of [0, 1, 8, 0x1000 - length]) {
      const bytes = Buffer.from(Array.from({ length }, (_, i) => 0xf0 - i));
      bar.write(0x3000 + offset, bytes);
      expect(Buffer.from(own.subarray(offset, offset + length))).toEqual(bytes);
      expect(read(0x3000 + offset, length)).toBe(bytes.toString('hex'));
    }
  });

  it("reads another peer's section, and ignores writes to it", () => {
    new Uint32Array(ports[0]!.output!.buffer)[1] = 0x12345678;
    bar.write(0x2000, Buffer.alloc(0x1000, 0xff));
    expect(read(0x2000, 8)).toBe('0000000078563412');
  });

  it('writes the R/W section', () => {
    bar.write(0x1ffc, Buffer.from('01020304', 'hex'));
    expect(new Uint32Array(ports[0]!.readWrite!.buffer)[0x3ff]).toBe(0x04030201);
  });

  it('splits accesses that span sections, each with its own permissions', () => {
    bar.write(0, Buffer.alloc(0x5000, 0xaa));
    const all = Buffer.alloc(0x5000, 0xee);
    bar.read(0, all);
    const runs = [0, 0x1000, 0x2000, 0x3000, 0x4000].map((at) => new Set(all.subarray(at, at + 0x1000)));
    expect(runs).toEqual([new Set([0]), new Set([0xaa]), new Set([0]), new Set([0xaa]), new Set([0])]);
  });
});
