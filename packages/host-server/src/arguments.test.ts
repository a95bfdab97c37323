import { describe, expect, it } from 'vitest';
import { DEFAULT_PID_FILE, parseServerArguments, ServerArgumentError, serverUsage } from './arguments.ts';

const settings = (...argv: string[]) => parseServerArguments(argv).settings;

describe('command line of the host server', () => {
  it('says nothing by default', () => {
    expect(parseServerArguments([])).toEqual({
      help: false,
      verbose: false,
      foreground: false,
      pidFile: DEFAULT_PID_FILE,
      settings: {},
    });
  });

  it('takes what is usual for getopt', () => {
    const all = '-Fv -l4M -S /run/s -o 1M -n2 -V 2 -P 0x1 -p /run/p -m /dev/hugepages'.split(' ');
    expect(parseServerArguments(all)).toEqual({
      help: false,
      verbose: true,
      foreground: true,
      pidFile: '/run/p',
      settings: {
        size: 4 << 20,
        socketPath: '/run/s',
        outputSectionSize: 1 << 20,
        maxPeers: 2,
        vectors: 2,
        protocol: 1,
        sharedMemory: { kind: 'directory', path: '/dev/hugepages' },
      },
    });
    expect(settings('-FvMname')).toEqual({ sharedMemory: { kind: 'posix', name: 'name' } });
    expect(settings('-M', 'a', '-m', '/b')).toEqual({ sharedMemory: { kind: 'directory', path: '/b' } });
    expect(settings('-S', '-odd')).toEqual({ socketPath: '-odd' });
    expect(parseServerArguments(['--help']).help).toBe(true);
    expect(parseServerArguments(['-hv']).help).toBe(true);
  });

  it.each([
    ['65536', 65536],
    ['64K', 65536],
    ['64k', 65536],
    ['0x10000', 65536],
    ['1.5M', 1.5 * 1024 ** 2],
    ['2g', 2 * 1024 ** 3],
    ['1T', 1024 ** 4],
    ['16b', 16],
    ['0', 0],
  ])('reads a size of %s as %i', (text, size) => {
    expect(settings('-l', text)).toEqual({ size });
    expect(settings(`-o${text}`)).toEqual({ outputSectionSize: size });
  });

  it.each([
    ['2', 2],
    ['0x8003', 0x8003],
    ['0XFFFF', 0xffff],
    ['010', 8],
    ['0', 0],
  ])('reads a number of %s as %i', (text, number) => {
    expect(settings('-n', text, '-V', text, '-P', text)).toEqual({
      maxPeers: number,
      vectors: number,
      protocol: number,
    });
  });

  it.each([
    [['-x'], '-x: unknown option'],
    [['-Fx'], '-x: unknown option'],
    [['--socket'], '"--socket": unexpected'],
    [['stray'], '"stray": unexpected'],
    [['-'], '"-": unexpected'],
    [['-l'], '-l: needs a value'],
    [['-Fl'], '-l: needs a value'],
    [['-l', '4X'], '-l 4X: must be a size'],
    [['-l', '-1'], '-l -1: must be a size'],
    [['-l', '1.5'], '-l 1.5: must be a size'],
    [['-l', '99999E'], '-l 99999E: must be a size'],
    [['-l', ''], '-l : must be a size'],
    [['-o', 'K'], '-o K: must be a size'],
    [['-n', '2x'], '-n 2x: must be a number'],
    [['-n', '-2'], '-n -2: must be a number'],
    [['-V', '1.5'], '-V 1.5: must be a number'],
    [['-P', '08'], '-P 08: must be a number'],
    [['-P', '99999999999999999999'], '-P 99999999999999999999: must be a number'],
    [['-v'], '-v: a daemon has nowhere to log to: add -F'],
  ])('%j is refused', (argv, text) => {
    expect(() => parseServerArguments(argv)).toThrow(ServerArgumentError);
    expect(() => parseServerArguments(argv)).toThrow(text);
  });

  it('explains every option it takes', () => {
    for (const option of 'hvFpSMmlonVP')
      expect(serverUsage('x')).toMatch(new RegExp(`^ {2}-${option} `, 'm'));
  });
});
