import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addAddress, setIpv6 } from './address.ts';
import { missingNetworkPrivilege } from './capabilities.ts';
import { F_GETFL, O_NONBLOCK } from './constants.ts';
import { EPOLLIN, Epoll } from './epoll.ts';
import { createBridge, deleteInterface, getInterface, listInterfaces, setInterface } from './interface.ts';
import * as libc from './libc.ts';
import { mapPrivate } from './memory.ts';
import { Netns } from './netns.ts';
import { openPacketSocket } from './packet-socket.ts';
import { openTap, TAP_MAX_MTU } from './tap.ts';

const missing = missingNetworkPrivilege();
const openFds = () => readdirSync('/proc/self/fd').length;
const BROADCAST = 'ffffffffffff';
const MAC = '020000000001';
const OTHER_MAC = '020000000002';

function frameOf(length: number, etherType = '88b5'): Buffer {
  const frame = Buffer.alloc(length, 0x5a);
  frame.write(`${BROADCAST}${OTHER_MAC}${etherType}`, 'hex');
  return frame;
}

describe.skipIf(missing !== null)(`TAP ${missing ?? ''}`, () => {
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

  it('is made in the namespace of the thread, and goes with its descriptor', () => {
    netns.run(() => {
      const tap = openTap('t0');
      expect(getInterface('t0')).toMatchObject({ kind: 'tun', up: false, carrier: true, mtu: 1500 });
      expect(libc.fcntl(tap.fd, F_GETFL, 'int', 0) & O_NONBLOCK).toBe(O_NONBLOCK);
      tap.close();
      tap.close();
      expect(getInterface('t0')).toBeNull();
    });
    expect(listInterfaces().filter(({ name }) => name === 't0')).toEqual([]);
  });

  it('can persist, and be attached to again', () => {
    netns.run(() => {
      openTap('t0', { persist: true }).close();
      const { index } = getInterface('t0')!;
      expect(() => openTap('t0', { exclusive: true })).toThrow('EBUSY');
      {
        using tap = openTap('t0');
        expect(getInterface('t0')!.index).toBe(index);
        tap.setPersistent(false);
      }
      expect(getInterface('t0')).toBeNull();
      openTap('t0', { persist: true }).close();
      deleteInterface('t0');
    });
  });

  it('has a carrier that can be pulled', () => {
    netns.run(() => {
      using tap = openTap('t0');
      setInterface('t0', { up: true });
      tap.setCarrier(false);
      expect(getInterface('t0')).toMatchObject({ up: true, carrier: false });
      tap.setCarrier(true);
      expect(getInterface('t0')).toMatchObject({ up: true, carrier: true });
    });
  });

  it('says what is wrong', () => {
    netns.run(() => {
      using _tap = openTap('t0');
      createBridge('br0');
      expect(() => openTap('t0')).toThrow(/^TUNSETIFF interface t0: EBUSY: .*in use/);
      expect(() => openTap('br0')).toThrow(/^TUNSETIFF interface br0: EINVAL: .*no TAP/);
      expect(() => openTap('a-name-too-long-')).toThrow('has 16 bytes, but may have 15 at most');
      expect(listInterfaces().filter(({ kind }) => kind === 'tun')).toHaveLength(1);
    });
  });

  it('takes TAP_MAX_MTU and no more', () => {
    netns.run(() => {
      using _tap = openTap('t0');
      setInterface('t0', { mtu: TAP_MAX_MTU });
      expect(() => setInterface('t0', { mtu: TAP_MAX_MTU + 1 })).toThrow('EINVAL');
      expect(getInterface('t0')!.mtu).toBe(TAP_MAX_MTU);
    });
  });

  it.each([60, 1514, TAP_MAX_MTU + 14])('carries frames of %i bytes both ways, untouched', (length) => {
    using memory = mapPrivate(65536);
    const bytes = Buffer.from(memory.buffer);
    netns.run(() => {
      using tap = openTap('t0');
      setIpv6('t0', false);
      setInterface('t0', { up: true, mtu: Math.max(68, length - 14) });
      using socket = openPacketSocket('t0');

      const inward = frameOf(length);
      inward.copy(bytes);
      expect(libc.write(tap.fd, memory.address, length)).toBe(length);
      expect(Buffer.from(socket.receive(2000)!).equals(inward)).toBe(true);

      const outward = frameOf(length).fill(0x33, 14);
      socket.send(outward);
      using epoll = new Epoll();
      epoll.add(tap.fd, EPOLLIN, () => {});
      expect(epoll.wait(2000)).toBe(1);
      expect(libc.read(tap.fd, memory.address, 65536)).toBe(length);
      expect(bytes.subarray(0, length).equals(outward)).toBe(true);
      // Nothing else came, and none of what was sent was heard.
      expect(socket.receive(0)).toBeNull();
    });
  });

  it('keeps VLAN tags, as the packet socket does', () => {
    using memory = mapPrivate(4096);
    netns.run(() => {
      using tap = openTap('t0');
      setIpv6('t0', false);
      setInterface('t0', { up: true });
      using socket = openPacketSocket('t0');
      const frame = frameOf(100, '8100');
      frame.write('2064' + '88b5', 14, 'hex');
      frame.copy(Buffer.from(memory.buffer));
      libc.write(tap.fd, memory.address, frame.length);
      expect(Buffer.from(socket.receive(2000)!).toString('hex')).toBe(frame.toString('hex'));
    });
  });

  it('shows what the kernel sends: it asks for the MAC address of a neighbour', () => {
    using memory = mapPrivate(65536);
    const bytes = Buffer.from(memory.buffer);
    netns.run(() => {
      using tap = openTap('t0');
      setIpv6('t0', false);
      setInterface('t0', { up: true, mac: '02:00:00:00:00:01' });
      addAddress('t0', '10.9.0.1/24');
      // A datagram for a neighbour that nobody knows: struct sockaddr_in {u16 family, u16 port, u32 address}.
      const socket = libc.socket(2, 2, 0);
      const neighbour = Buffer.from('02000009' + '0a090002' + '0000000000000000', 'hex');
      expect(libc.sendto(socket, new Uint8Array(1), 1, 0, neighbour, 16)).toBe(1);
      libc.close(socket);
      using epoll = new Epoll();
      epoll.add(tap.fd, EPOLLIN, () => {});
      expect(epoll.wait(2000)).toBe(1);
      const length = libc.read(tap.fd, memory.address, 65536);
      const arp = bytes.subarray(0, length).toString('hex');
      expect(arp).toBe(`${BROADCAST}${MAC}08060001080006040001${MAC}0a090001${'0'.repeat(12)}0a090002`);
    });
  });
});
