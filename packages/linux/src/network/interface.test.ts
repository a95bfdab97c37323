import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addAddress, addRoute, setIpv6 } from './address.ts';
import { missingNetworkPrivilege } from './capabilities.ts';
import {
  checkInterfaceName,
  createBridge,
  createVeth,
  deleteInterface,
  getInterface,
  linkIndex,
  listInterfaces,
  setInterface,
  waitForInterface,
} from './interface.ts';
import { Netns } from './netns.ts';

const missing = missingNetworkPrivilege();
const openFds = () => readdirSync('/proc/self/fd').length;

describe('interface names', () => {
  it.each(['', 'a'.repeat(16), 'ä'.repeat(8), 'a b', 'a\tb', 'a/b', '.', '..', 'a:b', 'tap%d', 'a\0b'])(
    'cannot be "%s"',
    (name) => {
      expect(() => checkInterfaceName(name)).toThrow(/^interface name /);
    },
  );

  it.each(['a', 'ivn0', 'a'.repeat(15), 'eth0.100', '...'])('can be "%s"', (name) => {
    checkInterfaceName(name);
  });
});

describe.skipIf(missing !== null)(`interfaces ${missing ?? ''}`, () => {
  let netns: Netns;
  let fds: number;

  beforeEach(() => {
    fds = openFds();
    netns = Netns.create();
  });

  afterEach(() => {
    netns.close();
    expect(openFds()).toBe(fds);
  });

  it('are null, or ENODEV, if there are none', () => {
    netns.run(() => {
      expect(getInterface('none')).toBeNull();
      expect(() => linkIndex('none')).toThrow(/^RTM_GETLINK interface none: ENODEV: /);
      expect(() => setInterface('none', { up: true })).toThrow('ENODEV');
      expect(() => deleteInterface('none')).toThrow('ENODEV');
      expect(() => addAddress('none', '10.0.0.1/24')).toThrow('ENODEV');
      expect(() => setIpv6('none', false)).toThrow('ENOENT');
    });
  });

  it('can be changed with one request', () => {
    netns.run(() => {
      createVeth('v0', 'v1');
      setInterface('v0', { up: true, mtu: 9000, mac: '02:00:00:00:AB:01', name: 'cable' });
      expect(getInterface('v0')).toBeNull();
      expect(getInterface('cable')).toMatchObject({
        up: true,
        mtu: 9000,
        mac: '02:00:00:00:ab:01',
        kind: 'veth',
      });
      setInterface('cable', { up: false });
      expect(getInterface('cable')).toMatchObject({ up: false, mtu: 9000 });
      setInterface('cable', {});
      expect(linkIndex('cable')).toBe(getInterface('cable')!.index);
    });
  });

  it('report why the kernel rejects a change, and remain unchanged', () => {
    netns.run(() => {
      createVeth('v0', 'v1');
      const before = listInterfaces();
      expect(() => setInterface('v0', { mtu: 70000 })).toThrow(
        /^RTM_NEWLINK interface v0: EINVAL: mtu greater/,
      );
      expect(() => setInterface('v0', { mtu: 1500.5 })).toThrow(RangeError);
      expect(() => setInterface('v0', { up: true, mac: '02:00:00:00:00' })).toThrow('is no MAC address');
      expect(() => setInterface('v0', { up: true, mac: '01:00:00:00:00:01' })).toThrow('EADDRNOTAVAIL');
      expect(() => setInterface('v0', { up: true, name: 'v1' })).toThrow('EEXIST');
      expect(() => setInterface('v0', { up: true, bridge: 'none' })).toThrow('ENODEV');
      expect(() => setInterface('v0', { bridge: 'lo' })).toThrow('v0: ENOTSUP: interface lo is not a bridge');
      expect(() => setInterface('v0', { bridge: 'v1', netns: netns.fd })).toThrow(RangeError);
      expect(() => createBridge('v0')).toThrow(/^RTM_NEWLINK interface v0: EEXIST: /);
      expect(listInterfaces()).toEqual(before);
    });
  });

  it('can be ports of a bridge', () => {
    netns.run(() => {
      createBridge('br0');
      createVeth('v0', 'v1');
      setInterface('v0', { bridge: 'br0' });
      expect(getInterface('v0')).toMatchObject({ master: 'br0' });
      expect(listInterfaces().find(({ name }) => name === 'v0')).toMatchObject({ master: 'br0' });
      expect(getInterface('br0')).toMatchObject({ kind: 'bridge', master: null });
      setInterface('v0', { bridge: null });
      expect(getInterface('v0')).toMatchObject({ master: null });
    });
  });

  it('exist in pairs if they are veth', () => {
    using other = Netns.create();
    netns.run(() => createVeth('v0', 'v1', { peerNetns: other.fd }));
    other.run(() => setInterface('v1', { up: true }));
    netns.run(() => {
      expect(getInterface('v1')).toBeNull();
      setInterface('v0', { up: true });
      waitForInterface('v0', (found) => found?.operState === 'up');
      deleteInterface('v0');
    });
    expect(other.run(() => getInterface('v1'))).toBeNull();
  });

  it('move to another namespace, where the rest of the change happens', () => {
    using other = Netns.create();
    netns.run(() => {
      createVeth('v0', 'v1');
      setInterface('v0', { netns: other.fd, name: 'moved', mtu: 2000, up: true });
      expect(getInterface('v0')).toBeNull();
      createBridge('br0');
      expect(() => setInterface('br0', { netns: other.fd })).toThrow('RTM_NEWLINK interface br0: EINVAL: ');
    });
    expect(other.run(() => getInterface('moved'))).toMatchObject({ kind: 'veth', mtu: 2000, up: true });
  });

  it('have addresses and routes', () => {
    netns.run(() => {
      createVeth('v0', 'v1');
      addAddress('v0', '10.9.0.1/24');
      addAddress('v0', 'fd09::1/64');
      expect(() => addAddress('v0', '10.9.0.1/24')).toThrow(
        'RTM_NEWADDR 10.9.0.1/24 on interface v0: EEXIST: ',
      );
      expect(() => addAddress('v0', '10.9.0.1')).toThrow(RangeError);
      setInterface('v0', { up: true });
      setInterface('v1', { up: true });
      addRoute({ to: 'default', via: '10.9.0.2' });
      addRoute({ to: '10.10.0.0/16', device: 'v0' });
      addRoute({ to: 'fd0a::/64', via: 'fd09::2', device: 'v0' });
      addRoute({ to: 'default', via: 'fd09::2' });
      expect(() => addRoute({ to: 'default', via: '10.9.0.2' })).toThrow(
        'RTM_NEWROUTE route to default: EEXIST: ',
      );
      expect(() => addRoute({ to: '10.11.0.1/16', device: 'v0' })).toThrow('bits behind the prefix');
      expect(() => addRoute({ to: '10.11.0.0/16', via: 'fd09::2' })).toThrow('the other IPv6');
      expect(() => addRoute({ to: '10.11.0.0/16' })).toThrow('via or device');
      expect(() => addRoute({ to: '10.11.0.0/16', via: '192.0.2.1' })).toThrow('ENETUNREACH');

      // An independent check. Destination, gateway, mask in host order; IPv6: destination, length, …, gateway.
      const ipv4 = readFileSync('/proc/thread-self/net/route', 'latin1');
      expect(ipv4).toMatch(/v0\t00000000\t0200090A\t0003/);
      expect(ipv4).toMatch(/v0\t00000A0A\t00000000\t0001/);
      const ipv6 = readFileSync('/proc/thread-self/net/ipv6_route', 'latin1');
      expect(ipv6).toMatch(/^fd0a0{28} 40 0{32} 00 fd090{27}2 /m);
      // Neither tentative (40) nor a failed duplicate: only permanent (80) and NODAD (02).
      const addresses = readFileSync('/proc/thread-self/net/if_inet6', 'latin1');
      expect(addresses).toMatch(/^fd090{27}1 \w+ 40 00 82 +v0$/m);
    });
  });

  it('can have IPv6 enabled and disabled', () => {
    netns.run(() => {
      createVeth('v0', 'v1');
      addAddress('v0', 'fd09::1/64');
      setIpv6('v0', false);
      expect(readFileSync('/proc/thread-self/net/if_inet6', 'latin1')).not.toMatch('v0');
      expect(() => addAddress('v0', 'fd09::1/64')).toThrow('RTM_NEWADDR');
      setIpv6('v0', true);
      addAddress('v0', 'fd09::1/64');
    });
  });

  it('can be waited for, up to a timeout', () => {
    netns.run(() => {
      createVeth('v0', 'v1');
      waitForInterface('v9', (found) => found === null);
      expect(() => waitForInterface('v0', (found) => found?.up === true, 50)).toThrow(
        'interface v0 is down, down after 50 ms',
      );
    });
  });
});
