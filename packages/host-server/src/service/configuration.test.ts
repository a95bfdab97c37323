import { OptionError } from '@ivshmem/linux';
import { describe, expect, it } from 'vitest';
import { parseConfiguration } from './configuration.ts';

const links = (...list: unknown[]) => parseConfiguration(JSON.stringify({ links: list }));

describe('configuration of several links', () => {
  it('has the defaults of the command line, and the path of the socket as name', () => {
    const [link] = links({ socket: '/run/a' });
    expect(link).toMatchObject({
      name: '/run/a',
      settings: { socketPath: '/run/a', mode: 0o600, size: 4 << 20, maxPeers: 2, vectors: 1, protocol: 0 },
    });
    expect(link!.settings.allow({ pid: 1, uid: 5, gid: 5 })).toBe(true);
    expect(parseConfiguration('{"links": []}')).toEqual([]);
  });

  it('accepts all keys, sizes and numbers as on the command line or as JSON numbers', () => {
    const [a, b, c] = links(
      {
        name: 'a',
        socket: '/run/a',
        mode: '660',
        group: 'root',
        allowUids: ['root', 1000],
        allowGids: [107],
        sharedMemory: { hugePages: '2M' },
        size: '64M',
        outputSectionSize: 1048576,
        maxPeers: 5,
        vectors: '0x2',
        protocol: '0x0001',
        evictAfter: 7,
      },
      { socket: '/run/b', sharedMemory: { posix: 'b' } },
      { socket: '/run/c', sharedMemory: { directory: '/dev/hugepages' } },
    );
    expect(a).toMatchObject({
      name: 'a',
      settings: {
        mode: 0o660,
        group: 0,
        sharedMemory: { kind: 'memfd', seal: true, hugePageSize: 2 ** 21 },
        size: 64 << 20,
        outputSectionSize: 1 << 20,
        maxPeers: 5,
        vectors: 2,
        protocol: 1,
        evictAfter: 7,
      },
    });
    const { allow } = a!.settings;
    const who = [1000, 7].map((uid) => [107, 7].map((gid) => allow({ pid: 1, uid, gid })));
    expect(who).toEqual([
      [true, true],
      [true, false],
    ]);
    expect(b!.settings.sharedMemory).toEqual({ kind: 'posix', name: 'b' });
    expect(c!.settings.sharedMemory).toEqual({ kind: 'directory', path: '/dev/hugepages' });
  });

  it('has the same source for equal settings, however written', () => {
    const source = (link: object) => links({ socket: '/run/a', ...link })[0]!.source;
    expect(source({ size: '4M' })).toBe(source({ size: 4194304, vectors: 1 }));
    expect(source({ allowUids: [0] })).toBe(source({ allowUids: ['root'] }));
    expect(source({ allowUids: [0] })).not.toBe(source({ allowUids: [1] }));
    expect(source({ evictAfter: 5 })).not.toBe(source({}));
  });

  it('rejects in one line what is nested too deeply to be shown', () => {
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    expect(() => parseConfiguration(`{"links": {"a": ${deep}}}`)).toThrow(
      'links (nested too deeply): must be a list of links',
    );
  });

  it('shows a file that is no object, without a key', () => {
    expect(() => parseConfiguration('null')).toThrow(/^null: must be an object with the key "links"$/);
  });

  const link = (more: object) =>
    JSON.stringify({ links: [{ socket: '/run/a' }, { socket: '/run/b', ...more }] });
  it.each([
    ['', 'not JSON: '],
    ['{"links":', 'not JSON: '],
    ['[]', '[]: must be an object with the key "links"'],
    ['{}', 'links: missing'],
    ['{"links": {}}', 'links {}: must be a list of links'],
    ['{"links": [], "metrics": 1}', 'metrics: unknown key: use links'],
    ['{"links": [null]}', 'links[0] null: must be a link, an object'],
    ['{"links": [{}]}', 'links[0].socket: missing'],
    [link({ sokcet: 1 }), 'links[1].sokcet: unknown key: use name, socket, mode'],
    [link({ __proto__x: 1 }), 'links[1].__proto__x: unknown key'],
    ['{"links": [{"__proto__": {"socket": "/x"}}]}', 'links[0].__proto__: unknown key'],
    [link({ name: '' }), 'links[1].name "": must be a name'],
    [link({ socket: 'x'.repeat(108) }), 'links[1].socket: socket "xxx'],
    [link({ mode: 660 }), 'links[1].mode 660: must be permissions in octal, as a string such as "660"'],
    [link({ mode: '689' }), 'links[1].mode "689": must be permissions'],
    [link({ group: 'no-such-group' }), 'links[1].group: group "no-such-group": this system has none'],
    [link({ group: {} }), 'links[1].group {}: must be a name or a number'],
    [link({ allowUids: 0 }), 'links[1].allowUids 0: must be a list of users'],
    [link({ allowUids: [0, 'no-such-user'] }), 'links[1].allowUids[1]: user "no-such-user"'],
    [link({ allowGids: [] }), 'links[1].allowGids []: must be a list that is not empty'],
    [link({ sharedMemory: 'shm' }), 'links[1].sharedMemory "shm": must be "memfd", {"posix": NAME}'],
    [link({ sharedMemory: {} }), 'links[1].sharedMemory {}: must be'],
    [link({ sharedMemory: { posix: 'a', directory: '/b' } }), 'links[1].sharedMemory {"posix":"a","di'],
    [link({ sharedMemory: { posix: 'a/b' } }), 'links[1].sharedMemory: shared memory object "a/b"'],
    [link({ sharedMemory: { hugePages: 3000000 } }), 'links[1].sharedMemory: size of huge pages 3000000'],
    [link({ sharedMemory: { hugePages: 0 } }), 'links[1].sharedMemory: size of huge pages 0'],
    [link({ size: '4X' }), 'links[1].size "4X": must be a size in bytes'],
    [link({ size: -1 }), 'links[1].size: size of shared memory -1: must be 1 to'],
    [link({ outputSectionSize: '4M' }), 'links[1].outputSectionSize: shared memory of 4194304 bytes is too'],
    [link({ outputSectionSize: 5 }), 'links[1].outputSectionSize: output sections of 5 bytes'],
    [link({ maxPeers: 1025 }), 'links[1].maxPeers: 1025 peers: the state table holds 2 to 1024'],
    [link({ maxPeers: 1.5 }), 'links[1].maxPeers: 1.5 peers'],
    [link({ vectors: true }), 'links[1].vectors true: must be a number'],
    [link({ vectors: 65 }), 'links[1].vectors: vectors 65: must be 1 to 64'],
    [link({ protocol: 0x8000, maxPeers: 3 }), 'links[1].maxPeers: 3 peers: virtio protocols'],
    [link({ evictAfter: 0 }), 'links[1].evictAfter: time to evict 0: must be 1 to 86400'],
    [link({ name: '/run/a' }), 'links[1].name "/run/a": already used by links[0]'],
    [link({ name: 'x', socket: '/run/a' }), 'links[1].socket "/run/a": already used by links[0]'],
    [
      JSON.stringify({
        links: ['m', '/m'].map((posix) => ({ socket: `/run/${posix}`, sharedMemory: { posix } })),
      }),
      'links[1].sharedMemory.posix "m": already used by links[0]',
    ],
  ])('%j is refused, naming the key', (text, message) => {
    expect(() => parseConfiguration(text)).toThrow(OptionError);
    expect(() => parseConfiguration(text)).toThrow(message);
  });
});
