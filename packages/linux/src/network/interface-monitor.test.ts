import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EPOLLIN, Epoll } from '../wait/epoll.ts';
import { addAddress, ensureAddress } from './address.ts';
import { missingNetworkPrivilege } from './capabilities.ts';
import { createBridge, deleteInterface, getInterface, setInterface } from './interface.ts';
import { InterfaceMonitor } from './interface-monitor.ts';
import { Netns } from './netns.ts';

const missing = missingNetworkPrivilege();

describe.skipIf(missing !== null)(`changes of interfaces ${missing ?? ''}`, () => {
  let netns: Netns;
  let monitor: InterfaceMonitor;
  const inside = <T>(fn: () => T) => netns.run(fn);
  const indexOf = (name: string) => inside(() => getInterface(name)!.index);

  beforeEach(() => {
    netns = Netns.create();
    inside(() => {
      createBridge('br0');
      createBridge('br1');
      monitor = new InterfaceMonitor();
    });
  });

  afterEach(() => {
    monitor.close();
    netns.close();
  });

  it.each([
    ['MTU', () => setInterface('br0', { mtu: 1280 })],
    ['name', () => setInterface('br0', { name: 'lan7' })],
    ['state', () => setInterface('br0', { up: true })],
    ['address', () => setInterface('br0', { mac: '02:00:00:00:00:aa' })],
    ['existence', () => deleteInterface('br0')],
  ])('are reported, and distinguished from those of other interfaces: %s', (_what, change) => {
    const [ours, other] = [indexOf('br0'), indexOf('br1')];
    expect(monitor.changed(undefined)).toBe(false);
    using epoll = new Epoll();
    epoll.add(monitor.fd, EPOLLIN, () => {});
    inside(change);
    expect(epoll.wait(5000)).toBe(1);
    expect(monitor.changed(other)).toBe(false);
    inside(() => setInterface('br1', { mtu: 1400 }));
    expect(monitor.changed(ours)).toBe(false);
    expect(epoll.wait(0)).toBe(0);
  });

  it('are not reported in another namespace', () => {
    using elsewhere = Netns.create();
    elsewhere.run(() => createBridge('br0'));
    expect(monitor.changed(undefined)).toBe(false);
  });

  it('count as changes of all interfaces if some were dropped', () => {
    const ours = indexOf('br0');
    inside(() => {
      for (let mtu = 1000; mtu < 2000; mtu++) setInterface('br1', { mtu });
    });
    let changed = false;
    using epoll = new Epoll();
    epoll.add(monitor.fd, EPOLLIN, () => {
      changed = monitor.changed(ours) || changed;
    });
    while (epoll.wait(0) > 0);
    expect(changed).toBe(true);
  });

  it('addresses are added unless they exist', () => {
    inside(() => {
      for (const address of ['10.9.0.1/24', '10.9.0.1/16', 'fd00::1/64']) {
        expect(() => ensureAddress('br0', address)).not.toThrow();
        expect(() => ensureAddress('br0', address)).not.toThrow();
        expect(() => addAddress('br0', address)).toThrow('EEXIST');
        expect(() => ensureAddress('br1', address)).not.toThrow();
      }
    });
  });
});
