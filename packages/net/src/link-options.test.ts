import { OptionError } from '@ivshmem/linux';
import { describe, expect, it } from 'vitest';
import { checkLinkOptions, type LinkOptions } from './link-options.ts';

const good: LinkOptions = { port: { type: 'server', socketPath: '/run/x.sock' }, tap: 'ivn0' };

describe('checkLinkOptions', () => {
  it('accepts valid options', () => {
    checkLinkOptions(good);
    checkLinkOptions({
      ...good,
      tap: 'fifteen-bytes-x',
      mtu: 65521,
      mac: '02:00:00:00:00:01',
      addresses: ['10.0.0.1/24', 'fd00::1/64'],
      bridge: 'br0',
      busyPoll: 0,
    });
  });

  it('accepts a descriptor instead of a name', () => {
    const { port } = good;
    checkLinkOptions({ port, tapFd: 3 });
    expect(() => checkLinkOptions({ port })).toThrow(OptionError);
    expect(() => checkLinkOptions({ port, tapFd: -1 })).toThrow('TAP descriptor -1: must be');
    expect(() => checkLinkOptions({ port, tapFd: 3, netns: 'blue' })).toThrow('leave out blue');
  });

  it.each<[string, Partial<LinkOptions>, string?]>([
    ['tap', { tap: 'sixteen-bytes-xx' }],
    ['tap', { tap: '' }],
    ['tap', { tap: 'a/b' }],
    ['tapFd', { tapFd: 3 }, 'tap'],
    ['bridge', { bridge: 'not a name' }],
    ['MTU 67', { mtu: 67 }],
    ['MTU 65522', { mtu: 65522 }],
    ['MTU 1500.5', { mtu: 1500.5 }],
    ['MAC address 01:00:00:00:00:01', { mac: '01:00:00:00:00:01' }],
    ['MAC address 00:00:00:00:00:00', { mac: '00:00:00:00:00:00' }],
    ['network namespace ""', { netns: '' }],
    ['MAC address 02:00:00:00:00', { mac: '02:00:00:00:00' }],
    ['10.0.0.1', { addresses: ['10.0.0.1'] }],
    ['10.0.0.1/33', { addresses: ['10.0.0.1/33'] }],
    ['busy-poll time -1', { busyPoll: -1 }],
    ['busy-poll time NaN', { busyPoll: Number.NaN }],
    ['socket', { port: { type: 'server', socketPath: 'x'.repeat(108) } }, 'socketPath'],
  ])('refuses a wrong %s in one line', (named, change, option = Object.keys(change)[0]) => {
    let message = '';
    try {
      checkLinkOptions({ ...good, ...change });
    } catch (error) {
      expect(error).toBeInstanceOf(OptionError);
      expect((error as OptionError).option).toBe(option);
      message = (error as Error).message;
    }
    expect(message).toMatch(/^[^\n]+$/);
    if (named !== 'tap' && named !== 'bridge') expect(message).toContain(named);
  });
});
