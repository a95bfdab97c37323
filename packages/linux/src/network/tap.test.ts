import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { F_GETFL, O_NONBLOCK, O_RDWR } from '../constants.ts';
import * as libc from '../libc.ts';
import { mapPrivate } from '../memory/memory.ts';
import { EPOLLIN, Epoll } from '../wait/epoll.ts';
import { addAddress, setIpv6 } from './address.ts';
import { missingNetworkPrivilege } from './capabilities.ts';
import {
  createBridge,
  deleteInterface,
  getInterface,
  listInterfaces,
  setInterface,
  waitForInterface,
} from './interface.ts';
import { openIpSocket } from './ip-socket.ts';
import { Netns } from './netns.ts';
import { openPacketSocket } from './packet-socket.ts';
import { openTap, TAP_MAX_MTU, type Tap, TunOffload, tapOf, VNET_HEADER_SIZE } from './tap.ts';

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

  it('is created in the namespace of the thread, and removed with its descriptor', () => {
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

  it('can be persistent, and attached to again', () => {
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

  it('has a carrier that can be turned off', () => {
    netns.run(() => {
      using tap = openTap('t0');
      setInterface('t0', { up: true });
      tap.setCarrier(false);
      expect(getInterface('t0')).toMatchObject({ up: true, carrier: false });
      tap.setCarrier(true);
      expect(getInterface('t0')).toMatchObject({ up: true, carrier: true });
    });
  });

  it('reports errors with a remedy', () => {
    netns.run(() => {
      using _tap = openTap('t0');
      createBridge('br0');
      expect(() => openTap('t0')).toThrow(/^TUNSETIFF interface t0: EBUSY: .*in use/);
      expect(() => openTap('br0')).toThrow(/^TUNSETIFF interface br0: EINVAL: .*no TAP/);
      expect(() => openTap('a-name-too-long-')).toThrow('has 16 bytes, but may have 15 at most');
      expect(listInterfaces().filter(({ kind }) => kind === 'tun')).toHaveLength(1);
    });
  });

  it('is identified by its descriptor, whatever its name and its namespace', () => {
    using tap = netns.run(() => openTap('t0'));
    using other = Netns.create();
    expect(tap.identify()).toBe('t0');
    netns.run(() => setInterface('t0', { netns: other.fd, name: 'lan7' }));
    expect(tap.name).toBe('t0');
    expect([tap.identify(), tap.name]).toEqual(['lan7', 'lan7']);
    {
      using found = tap.netns()!;
      expect(found.id).toBe(other.id);
    }
    tap.setMac('02:00:00:00:00:aa');
    expect(other.run(() => getInterface('lan7'))).toMatchObject({ mac: '02:00:00:00:00:aa' });
    other.run(() => deleteInterface('lan7'));
    expect(tap.identify()).toBeNull();
    expect(() => tap.setCarrier(true)).toThrow('TUNSETCARRIER interface lan7: EBADFD: it has been deleted');
  });

  it.each([true, false])('can be opened by another part of the program, with headers: %s', (vnetHeader) => {
    netns.run(() => {
      const owners = openTap('t0', { vnetHeader });
      bringUp('t0');
      const tap = tapOf(owners.fd);
      expect(tap).toMatchObject({ name: 't0', vnetHeader });
      datagramFrom(tap, 100);
      owners.close();
      datagramFrom(tap, 100);
      tap.close();
      expect(getInterface('t0')).toBeNull();
    });
  });

  it('is not created from a descriptor of another kind', () => {
    const unattached = libc.open('/dev/net/tun', O_RDWR, 'uint', 0);
    expect(() => tapOf(unattached)).toThrow(/^TUNGETIFF fd \d+: EBADFD: is no TAP/);
    libc.close(unattached);
    expect(() => tapOf(unattached)).toThrow(/EBADF: no such descriptor/);
    expect(() => tapOf(netns.fd)).toThrow(/is no TAP/);
  });

  it('shows whether it has packet information, which its descriptor does not', () => {
    netns.run(() => {
      {
        using _tap = openTap('t0');
        expect(getInterface('t0')!.packetInformation).toBe(false);
      }
      const owners = libc.open('/dev/net/tun', O_RDWR, 'uint', 0);
      const ifreq = Buffer.alloc(40);
      ifreq.write('t0');
      ifreq.writeUInt16LE(2, 16); // IFF_TAP alone
      expect(libc.ioctl(owners, 0x400454ca, 'void *', ifreq)).toBe(0);
      expect(getInterface('t0')!.packetInformation).toBe(true);
      libc.close(owners);
      expect(getInterface('lo')!.packetInformation).toBe(false);
    });
  });

  it('can have several queues, and reports how many are attached', () => {
    netns.run(() => {
      const IFF_MULTI_QUEUE = 0x100;
      const first = openTap('t0', { persist: true });
      expect(getInterface('t0')!.queues).toBeNull();
      first.setPersistent(false);
      first.close();
      // As by "ip tuntap add mode tap multi_queue".
      const made = libc.open('/dev/net/tun', O_RDWR, 'uint', 0);
      const ifreq = Buffer.alloc(40);
      ifreq.write('t0');
      ifreq.writeUInt16LE(0x1002 | IFF_MULTI_QUEUE, 16);
      expect(libc.ioctl(made, 0x400454ca, 'void *', ifreq)).toBe(0);
      {
        using _second = openTap('t0');
        expect(getInterface('t0')!.queues).toBe(2);
      }
      expect(getInterface('t0')!.queues).toBe(1);
      libc.close(made);
    });
  });

  it('accepts TAP_MAX_MTU and no more', () => {
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
      // No other frame arrived, and none of those sent was received.
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

  it('returns what the kernel sends: a request for the MAC address of a neighbour', () => {
    using memory = mapPrivate(65536);
    const bytes = Buffer.from(memory.buffer);
    netns.run(() => {
      using tap = openTap('t0');
      setIpv6('t0', false);
      setInterface('t0', { up: true, mac: '02:00:00:00:00:01' });
      addAddress('t0', '10.9.0.1/24');
      // A datagram for an unknown neighbour: struct sockaddr_in {u16 family, u16 port, u32 address}.
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

  /** Makes the kernel send a UDP datagram of `size` bytes to a neighbour, and reads it from the TAP. */
  function datagramFrom(tap: Tap, size: number): { header: Buffer; frame: Buffer } {
    using memory = mapPrivate(65536);
    const bytes = Buffer.from(memory.buffer);
    using socket = openIpSocket(2, 'udp', 1000);
    // The kernel notices the carrier with a delay.
    waitForInterface(tap.name, (found) => found?.carrier === true && found.operState !== 'down');
    // Broadcast, which needs no neighbour: SOL_SOCKET, SO_BROADCAST.
    socket.setOption(1, 6, 1);
    socket.connect('10.9.0.255', 9);
    expect(libc.send(socket.fd, memory.address, size, 0)).toBe(size);
    using epoll = new Epoll();
    epoll.add(tap.fd, EPOLLIN, () => {});
    expect(epoll.wait(2000)).toBe(1);
    const length = libc.read(tap.fd, memory.address, 65536);
    const headerSize = tap.vnetHeader ? VNET_HEADER_SIZE : 0;
    expect(length).toBe(headerSize + 14 + 20 + 8 + size);
    return {
      header: Buffer.from(bytes.subarray(0, headerSize)),
      frame: Buffer.from(bytes.subarray(headerSize, length)),
    };
  }

  function bringUp(name: string): void {
    setIpv6(name, false);
    setInterface(name, { up: true });
    addAddress(name, '10.9.0.1/24');
  }

  const checksumOf = (frame: Buffer) => frame.readUInt16BE(14 + 20 + 6);

  it('leaves checksums to its reader while that offload is set', () => {
    netns.run(() => {
      using tap = openTap('t0', { vnetHeader: true });
      bringUp('t0');
      const before = datagramFrom(tap, 100);
      expect(before.header).toEqual(Buffer.alloc(VNET_HEADER_SIZE));
      expect(tap.setOffload(TunOffload.CSUM)).toBe(true);
      const partial = datagramFrom(tap, 100);
      // NEEDS_CSUM, from the UDP header on, into its checksum field.
      expect(partial.header.toString('hex')).toBe('01000000000022000600');
      expect(tap.setOffload(0)).toBe(true);
      expect(datagramFrom(tap, 100).header).toEqual(Buffer.alloc(VNET_HEADER_SIZE));
    });
  });

  it('rejects an unknown offload, and remains unchanged', () => {
    netns.run(() => {
      using tap = openTap('t0', { vnetHeader: true });
      bringUp('t0');
      expect(tap.setOffload(TunOffload.CSUM)).toBe(true);
      expect(tap.setOffload(TunOffload.CSUM | 0x40000000)).toBe(false);
      expect(datagramFrom(tap, 10).header[0]).toBe(1);
    });
  });

  it('can be attached to with and without headers, whatever its previous user chose', () => {
    netns.run(() => {
      openTap('t0', { persist: true }).close();
      bringUp('t0');
      {
        using tap = openTap('t0', { vnetHeader: true });
        expect(datagramFrom(tap, 60).header).toEqual(Buffer.alloc(VNET_HEADER_SIZE));
        tap.setOffload(TunOffload.CSUM | TunOffload.TSO4 | TunOffload.TSO6);
      }
      {
        using tap = openTap('t0');
        const { frame } = datagramFrom(tap, 60);
        expect(frame.subarray(12, 15).toString('hex')).toBe('080045');
        expect(checksumOf(frame)).not.toBe(0);
      }
      using tap = openTap('t0', { vnetHeader: true });
      expect(datagramFrom(tap, 60).header).toEqual(Buffer.alloc(VNET_HEADER_SIZE));
      tap.setPersistent(false);
    });
  });

  it('reads and writes a header and a frame in separate buffers', () => {
    using memory = mapPrivate(8192);
    const bytes = Buffer.from(memory.buffer);
    const vector = (at: number, parts: [number, number][]) => {
      for (const [i, [address, length]] of parts.entries()) {
        bytes.writeBigUInt64LE(BigInt(address), at + 16 * i);
        bytes.writeBigUInt64LE(BigInt(length), at + 16 * i + 8);
      }
    };
    netns.run(() => {
      using tap = openTap('t0', { vnetHeader: true });
      setIpv6('t0', false);
      setInterface('t0', { up: true });
      using socket = openPacketSocket('t0');
      vector(0, [
        [memory.address + 64, VNET_HEADER_SIZE],
        [memory.address + 4096, 100],
      ]);
      const frame = frameOf(100);
      frame.copy(bytes, 4096);
      expect(libc.writev(tap.fd, memory.address, 2)).toBe(VNET_HEADER_SIZE + 100);
      expect(Buffer.from(socket.receive(2000)!).equals(frame)).toBe(true);
      bytes.fill(0xff, 64, 128);
      socket.send(frame.fill(0x44, 14));
      expect(libc.readv(tap.fd, memory.address, 2)).toBe(VNET_HEADER_SIZE + 100);
      expect(bytes.subarray(64, 64 + VNET_HEADER_SIZE)).toEqual(Buffer.alloc(VNET_HEADER_SIZE));
      expect(bytes.subarray(4096, 4196).equals(frame)).toBe(true);
    });
  });
});
