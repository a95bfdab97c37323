import { OptionError } from '@ivshmem/linux';
import { describe, expect, it } from 'vitest';
import { completeSettings, type HostServerSettings, protocolOf, settingsWarnings } from './options.ts';

describe('settings of the host server', () => {
  it("have the defaults of the specification's server, and a sealed memfd", () => {
    expect(completeSettings({ size: undefined })).toMatchObject({
      socketPath: '/tmp/ivshmem_socket',
      sharedMemory: { kind: 'memfd', seal: true },
      size: 4 << 20,
      outputSectionSize: 0,
      maxPeers: 2,
      vectors: 1,
      protocol: 0,
      mode: 0o600,
    });
  });

  it.each([
    [1, 4096],
    [4096, 4096],
    [4097, 8192],
    [5_000_000, 8 << 20],
    [2 ** 32 + 1, 2 ** 33],
    [2 ** 46, 2 ** 46],
  ])('round a size of %i up to %i', (size, rounded) => {
    expect(completeSettings({ size }).size).toBe(rounded);
  });

  it.each<[Partial<HostServerSettings>, string]>([
    [{ vectors: 0 }, 'vectors 0: must be 1 to 64'],
    [{ vectors: 65 }, 'vectors 65'],
    [{ vectors: 1.5 }, 'vectors 1.5'],
    [{ protocol: 0x10000 }, 'protocol 65536'],
    [{ protocol: -1 }, 'protocol -1'],
    [{ size: 0 }, 'size of shared memory 0'],
    [{ size: 2 ** 46 + 1 }, 'size of shared memory'],
    [{ size: Number.NaN }, 'size of shared memory NaN'],
    [{ mode: 0o1000 }, 'socket mode'],
    [{ socketPath: '' }, 'socket ""'],
    [{ socketPath: 'é'.repeat(54) }, 'not 108'],
    [{ socketPath: '/tmp/\0' }, 'socket'],
    [{ sharedMemory: { kind: 'posix', name: '' } }, 'shared memory object ""'],
    [{ sharedMemory: { kind: 'posix', name: '/a/b' } }, 'shared memory object "/a/b"'],
    [{ sharedMemory: { kind: 'posix', name: '..' } }, 'shared memory object ".."'],
    [{ sharedMemory: { kind: 'directory', path: '' } }, 'directory ""'],
    [{ protocol: 0x8000, maxPeers: 3 }, 'virtio protocols (0x8000 to 0xffff) have two'],
  ])('%o is refused', (given, text) => {
    expect(() => completeSettings(given)).toThrow(OptionError);
    expect(() => completeSettings(given)).toThrow(text);
  });

  it.each<[Partial<HostServerSettings>, string]>([
    [{ maxPeers: 1 }, '1 peers: the state table holds 2 to 1024'],
    [{ maxPeers: 1025 }, '1025 peers'],
    [{ outputSectionSize: 100 }, 'output sections of 100 bytes'],
    [{ size: 8192, outputSectionSize: 4096 }, 'is too small'],
  ])('%o cannot be laid out', (given, text) => {
    expect(() => completeSettings(given)).toThrow(OptionError);
    expect(() => completeSettings(given)).toThrow(text);
  });

  it.each<[Partial<HostServerSettings>, number, Partial<HostServerSettings>]>([
    [{}, 4096, { vectors: 2, outputSectionSize: 2 ** 20 }],
    [{ size: 2 ** 30 }, 4096, { outputSectionSize: 2 ** 20 }],
    [{ size: 2 ** 21 }, 4096, { outputSectionSize: 2 ** 19 }],
    [{ maxPeers: 4 }, 4096, { outputSectionSize: 2 ** 19 }],
    [{ size: 2 ** 14 }, 4096, { outputSectionSize: 4096 }],
    [{ size: 2 ** 18 }, 65536, { outputSectionSize: 65536 }],
    [{ vectors: 1, outputSectionSize: 0 }, 4096, { vectors: 1, outputSectionSize: 0 }],
    [{ vectors: undefined, outputSectionSize: 8192 }, 4096, { vectors: 2, outputSectionSize: 8192 }],
  ])('of protocol 0x0001 with %o and pages of %i bytes are %o by default', (given, hostPage, expected) => {
    expect(completeSettings({ protocol: 1, ...given }, hostPage)).toMatchObject(expected);
  });

  it('of protocol 0x0001 give a warning if peers cannot use them', () => {
    const warnings = (given: Partial<HostServerSettings>) => settingsWarnings(completeSettings(given));
    expect([warnings({}), warnings({ protocol: 1 })]).toEqual([[], []]);
    expect(warnings({ protocol: 1, vectors: 1, outputSectionSize: 0 })).toEqual([
      expect.stringContaining('add -o 1M'),
      expect.stringContaining('add -V 2'),
    ]);
  });

  it.each([
    [4096, 4096, 1],
    [16384, 16384, 1],
    [65536, 65536, 1],
    [65536, 196608, 1 << 17],
  ])('fit pages of %i bytes: sections of %i, memory of %i', (hostPage, outputSectionSize, size) => {
    const settings = { size: Math.max(size, 4 * outputSectionSize), outputSectionSize };
    expect(completeSettings(settings, hostPage)).toMatchObject({ outputSectionSize });
    expect(completeSettings({ size }, hostPage).size % hostPage).toBe(0);
    expect(() => completeSettings({ outputSectionSize: hostPage / 2 }, hostPage)).toThrow(
      `output sections of ${hostPage / 2} bytes: must be a multiple of ${hostPage}, the page size`,
    );
  });

  it('define the protocol type of each peer', () => {
    expect([0, 1, 2].map((peer) => protocolOf({ protocol: 0x7fff }, peer))).toEqual([0x7fff, 0x7fff, 0x7fff]);
    expect([0, 1].map((peer) => protocolOf({ protocol: 0x8000 }, peer))).toEqual([0xc000, 0x8000]);
    expect([0, 1].map((peer) => protocolOf({ protocol: 0xffff }, peer))).toEqual([0xffff, 0xbfff]);
  });
});
