import { OptionError } from '@ivshmem/linux';
import { describe, expect, it } from 'vitest';
import { parseServerArguments } from './arguments.ts';
import { DEFAULT_PID_FILE } from './option-table.ts';
import { serverUsage } from './usage.ts';

const settings = (...argv: string[]) => parseServerArguments(argv).settings;

describe('command line of the host server', () => {
  it('gives no settings by default', () => {
    expect(parseServerArguments([])).toEqual({
      help: false,
      verbose: false,
      foreground: false,
      pidFile: DEFAULT_PID_FILE,
      pidFileGiven: false,
      settings: {},
      json: false,
      metrics: null,
      config: null,
    });
  });

  it('accepts the syntax of getopt', () => {
    const all = '-Fv -l4M -S /run/s -o 1M -n2 -V 2 -P 0x1 -p /run/p -m /dev/hugepages'.split(' ');
    expect(parseServerArguments(all)).toMatchObject({
      help: false,
      verbose: true,
      foreground: true,
      pidFile: '/run/p',
      pidFileGiven: true,
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
    for (const argv of [['-hx'], ['-h', '-x'], ['stray', '-h'], ['-F', '-h', '-l', 'x'], ['--h', '--']]) {
      expect(parseServerArguments(argv).help).toBe(true);
    }
    expect(parseServerArguments(['-F', '--']).foreground).toBe(true);
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
    [['--socket'], '--socket: unknown option'],
    [['stray'], '"stray": unexpected argument, only options are accepted'],
    [['--', '-h'], '"-h": unexpected'],
    [['-x', '-h'], '-x: unknown option'],
    [['-'], '"-": unexpected'],
    [['-l'], '-l: requires a value'],
    [['-Fl'], '-l: requires a value'],
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
    [['--mode', '660'], '--mode: unknown option'],
    [['--help=1'], '--help: takes no value'],
    [['-P', '99999999999999999999'], '-P 99999999999999999999: must be a number'],
  ])('%j is refused', (argv, text) => {
    expect(() => parseServerArguments(argv)).toThrow(OptionError);
    expect(() => parseServerArguments(argv)).toThrow(text);
  });

  it('has a line in the help for every option', () => {
    for (const option of 'hvFpSMmlonVP')
      expect(serverUsage('x')).toMatch(new RegExp(`^ {2}-${option} `, 'm'));
  });
});

describe('extended command line of the host server', () => {
  const extended = (...argv: string[]) => parseServerArguments(argv, 'extended');

  it('accepts long options besides the short ones, with values attached or not', () => {
    const given = extended(
      ...'-FS /run/s --metrics=9100 --json --mode 0660 --group 0 --hugepages --evict-after 5'.split(' '),
    );
    expect(given).toMatchObject({
      foreground: true,
      json: true,
      metrics: { address: '127.0.0.1', port: 9100 },
      settings: {
        socketPath: '/run/s',
        mode: 0o660,
        group: 0,
        evictAfter: 5,
        sharedMemory: { kind: 'memfd', seal: true, hugePageSize: 2 ** 21 },
      },
    });
    expect(extended('--hugepages=1G').settings.sharedMemory).toMatchObject({ hugePageSize: 2 ** 30 });
    expect(extended('--config', '/etc/links.json', '-v')).toMatchObject({ config: '/etc/links.json' });
  });

  it('accepts clients on either list, and all clients without a list', () => {
    const { allow } = extended('--allow-uid', 'root', '--allow-uid=1000', '--allow-gid', '107').settings;
    const who = (uid: number, gid: number) => allow!({ pid: 1, uid, gid });
    expect([who(0, 5), who(1000, 5), who(7, 107), who(7, 7), who(107, 1000)]).toEqual([
      true,
      true,
      true,
      false,
      false,
    ]);
    expect(extended().settings.allow).toBeUndefined();
  });

  it.each([
    [['--config', 'x', '-S', 'y'], '-S: not with --config: put it into the configuration file'],
    [['--mode=660', '--config=x'], '--mode: not with --config'],
    [['--mode', '8'], '--mode 8: must be permissions in octal'],
    [['--group', 'no-such-group'], '--group: group "no-such-group": this system has none of that name'],
    [['--allow-uid', 'no-such-user'], '--allow-uid: user "no-such-user": this system has none'],
    [['--hugepages=x'], '--hugepages x: must be a size'],
    [['--hugepages=0'], '--hugepages 0: must be a size'],
    [['--hugepages', '-M', 'x'], '--hugepages: only for a memfd: omit -M and -m'],
    [
      ['--metrics', 'localhost:9100'],
      '--metrics localhost:9100: must be a port, or an IP address and a port',
    ],
    [['--metrics'], '--metrics: requires a value'],
    [['--json=1'], '--json: takes no value'],
    [['--evict-after', 'soon'], '--evict-after soon: must be a number'],
    [['--frob'], '--frob: unknown option'],
    [['--m', '660'], '--m: ambiguous: could be --mode, --metrics'],
    [['stray'], '"stray": unexpected argument, only options are accepted'],
  ])('%j is refused', (argv, text) => {
    expect(() => extended(...argv)).toThrow(OptionError);
    expect(() => extended(...argv)).toThrow(text);
  });

  it('has a line in the help for every option', () => {
    const usage = serverUsage('x', 'extended');
    for (const option of [
      'mode',
      'group',
      'allow-uid',
      'allow-gid',
      'hugepages',
      'evict-after',
      'config',
      'metrics',
      'json',
    ])
      expect(usage).toMatch(new RegExp(`^ {2}--${option}\\b`, 'm'));
    for (const option of 'hvFpSMmlonVP') expect(usage).toMatch(new RegExp(`^ {2}-${option} `, 'm'));
    expect(usage).toMatch(/\bdefault 30$/m);
    for (const line of usage.split('\n')) expect(line.length).toBeLessThanOrEqual(95);
  });
});
