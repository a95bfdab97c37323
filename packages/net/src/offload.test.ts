import { send } from '@ivshmem/linux';
import { mapPrivate } from '@ivshmem/linux/memory';
import {
  addAddress,
  missingNetworkPrivilege,
  Netns,
  openIpSocket,
  openPacketSocket,
  setIpv6,
  waitForInterface,
} from '@ivshmem/linux/network';
import { Loopback } from '@ivshmem/transport';
import { announcedCapabilities, Capability, ringLayout } from '@ivshmem/transport/protocol';
import { filter, firstValueFrom } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { frame, HandPeer } from './hand-peer.test-support.ts';
import { createLink, type Link } from './link.ts';

const missing = missingNetworkPrivilege();
const skip = missing !== null && process.env.CI === undefined;

const { VNET_HDR, TSO, USO } = Capability;
const LARGE = 0x100000;
const SMALL = 0x10000;
const NO_HEADER = new Uint8Array(10);

/** NEEDS_CSUM, gso_type, hdr_len, gso_size, csum_start, csum_offset. */
function header(flags: number, gsoType: number, ...words: [number, number, number, number]): Uint8Array {
  return new Uint8Array([flags, gsoType, ...new Uint8Array(Uint16Array.of(...words).buffer)]);
}

const join = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

describe.skipIf(skip)(`offloads of a link${skip ? ` (skipped: ${missing})` : ''}`, () => {
  let netns: Netns;
  let loopback: Loopback;
  let link: Link;
  let peer: HandPeer;

  beforeEach(() => {
    netns = Netns.create();
  });

  afterEach(async () => {
    await link.close();
    peer.close();
    loopback.close();
    netns.close();
  });

  /** The link with a peer that announces `capabilities`, with the carrier on. */
  async function connect(capabilities: number, options: { section?: number; offload?: boolean } = {}) {
    const { section = LARGE, offload } = options;
    loopback = new Loopback({ outputSectionSize: section });
    peer = new HandPeer(loopback, capabilities);
    link = await createLink({
      port: { type: 'loopback', end: loopback.ends[0] },
      tap: 'ivn0',
      netns: netns.path,
      mtu: 1500,
      ...(offload !== undefined && { offload }),
    });
    // So that the kernel sends no frames of its own.
    netns.run(() => setIpv6('ivn0', false));
    peer.until(() => peer.side.status.carrier);
    return firstValueFrom(link.state$.pipe(filter(({ carrier }) => carrier)));
  }

  /** Destination port of a datagram that is sent while the link is down. */
  const STRAY = 7;

  /** Has the kernel send 100 bytes by UDP to `port`, always from the same port. */
  function sendDatagram(port = 9): void {
    netns.run(() => {
      using socket = openIpSocket(2, 'udp', 1000);
      using memory = mapPrivate(100);
      // SOL_SOCKET, SO_BROADCAST: broadcast needs no neighbour entry.
      socket.setOption(1, 6, 1);
      socket.bind('10.9.0.1', 1000);
      socket.connect('10.9.0.255', port);
      expect(send(socket.fd, memory.address, 100, 0)).toBe(100);
    });
  }

  const announced = () => announcedCapabilities(peer.port.input(0)!, ringLayout(peer.port.output!.length));
  const counted = async (what: keyof ReturnType<Link['stats']>, count: number) => {
    while (link.stats()[what] < count) await new Promise((resolve) => setImmediate(resolve));
  };

  it.each([
    ['nothing', 0, []],
    ['checksums', VNET_HDR, ['checksum']],
    ['checksums and TCP', VNET_HDR | TSO, ['checksum', 'tso']],
    ['TCP without checksums', TSO, []],
  ] as const)('with a peer that announces %s', async (_what, capabilities, offloads) => {
    expect(await connect(capabilities)).toMatchObject({ offloads });
    expect(announced() & (VNET_HDR | TSO)).toBe(VNET_HDR | TSO);
  });

  it('are checksums alone if sections have no room for large frames', async () => {
    expect(await connect(VNET_HDR | TSO | USO, { section: SMALL })).toMatchObject({ offloads: ['checksum'] });
    expect(announced()).toBe(VNET_HDR);
  });

  it('are none if the options disable them', async () => {
    expect(await connect(VNET_HDR | TSO | USO, { offload: false })).toMatchObject({ offloads: [] });
    expect(announced()).toBe(0);
    using socket = netns.run(() => openPacketSocket('ivn0'));
    peer.send(frame(1));
    expect(socket.receive(2000)).toEqual(frame(1));
    socket.send(frame(2));
    expect(peer.receive()).toEqual(frame(2));
  });

  it.each([0, VNET_HDR])('put headers before frames if both support them: %i', async (capabilities) => {
    await connect(capabilities);
    const before = capabilities === 0 ? new Uint8Array(0) : NO_HEADER;
    using socket = netns.run(() => openPacketSocket('ivn0'));
    for (const length of [14, 60, 1514]) {
      peer.send(join(before, frame(length, length)));
      expect(socket.receive(2000)).toEqual(frame(length, length));
      socket.send(frame(length, length));
      expect(peer.receive()).toEqual(join(before, frame(length, length)));
    }
    // The longest frames, and their bytes without headers.
    expect(link.stats()).toMatchObject({ rxFrames: 3, rxBytes: 1588, txFrames: 3, txBytes: 1588 });
  });

  it('leave checksums to a peer that accepts them, but not to the next one', async () => {
    await connect(VNET_HDR);
    netns.run(() => addAddress('ivn0', '10.9.0.1/24'));
    sendDatagram();
    const partial = peer.receive();
    expect(partial.subarray(0, 10)).toEqual(header(1, 0, 0, 0, 34, 6));
    for (const capabilities of [0, VNET_HDR, 0]) {
      const down = firstValueFrom(link.state$.pipe(filter(({ carrier }) => !carrier)));
      peer.close();
      await down;
      // There is no peer to receive what the kernel sends now; it may still arrive when there is one again.
      sendDatagram(STRAY);
      peer = new HandPeer(loopback, capabilities);
      peer.until(() => peer.side.status.carrier);
      const offloads = capabilities === 0 ? [] : ['checksum'];
      await firstValueFrom(
        link.state$.pipe(filter((state) => state.carrier && `${state.offloads}` === `${offloads}`)),
      );
      netns.run(() =>
        waitForInterface('ivn0', (found) => found?.carrier === true && found.operState === 'up'),
      );
      sendDatagram();
      const destinationPort = (capabilities === 0 ? 0 : 10) + 14 + 20 + 2;
      let bytes = peer.receive();
      while (bytes[destinationPort + 1] === STRAY) bytes = peer.receive();
      if (capabilities === 0) {
        expect(bytes).toHaveLength(142);
        expect(bytes.subarray(40, 42)).not.toEqual(partial.subarray(50, 52));
      } else {
        expect(bytes.subarray(0, 10)).toEqual(partial.subarray(0, 10));
        // After the IP header, whose identification differs.
        expect(bytes.subarray(44)).toEqual(partial.subarray(44));
      }
    }
  });

  it('drop frames with invalid headers, with a counter and one line, and continue', async () => {
    await connect(VNET_HDR | TSO);
    const line = firstValueFrom(link.log$);
    const wrong = [
      header(4, 0, 0, 0, 0, 0),
      header(1, 0, 0, 0, 34, 1000),
      header(1, 5, 42, 500, 34, 6),
      header(1, 1, 54, 0, 34, 16),
      header(0, 1, 54, 100, 34, 16),
      header(0, 0, 2000, 0, 0, 0),
    ];
    for (const bytes of wrong) peer.send(join(bytes, frame(1, 200)));
    expect(await line).toBe(
      'the peer violates the protocol: a frame header has unknown flags; such frames are dropped',
    );
    await counted('dropsHeader', wrong.length);
    using socket = netns.run(() => openPacketSocket('ivn0'));
    peer.send(join(NO_HEADER, frame(7)));
    expect(socket.receive(2000)).toEqual(frame(7));
    expect(link.stats()).toMatchObject({ resets: 0, violations: 0, dropsHeader: wrong.length });
  });

  it('resolve a disagreement about headers by a reset, at a limited rate', async () => {
    await connect(VNET_HDR);
    const lines: string[] = [];
    link.log$.subscribe((text) => lines.push(text));
    // As sent by a peer that assumes frames without headers.
    for (let i = 0; i < 15; i++) peer.send(frame(i, 200));
    peer.send(join(NO_HEADER, frame(7)));
    for (let i = 0; i < 15; i++) peer.send(frame(i, 200));
    await counted('dropsHeader', 30);
    expect(link.stats()).toMatchObject({ resets: 0, violations: 0 });
    const down = firstValueFrom(link.state$.pipe(filter(({ carrier }) => !carrier)));
    peer.send(frame(1, 200));
    await down;
    await counted('resets', 1);
    expect(lines.filter((line) => line.includes('in a row'))).toEqual([
      '16 frames of the peer in a row have wrong headers; the link is reset',
    ]);
    peer.until(() => peer.side.counters.resets === 1 && peer.side.status.carrier);
    await firstValueFrom(link.state$.pipe(filter(({ carrier }) => carrier)));
    for (let i = 0; i < 50; i++) peer.send(frame(i, 200));
    await counted('dropsHeader', 81);
    using socket = netns.run(() => openPacketSocket('ivn0'));
    peer.send(join(NO_HEADER, frame(9)));
    expect(socket.receive(2000)).toEqual(frame(9));
    expect(link.stats()).toMatchObject({ resets: 1, violations: 1, dropsHeader: 81 });
  });

  it('drop frames too short for a header', async () => {
    await connect(VNET_HDR);
    for (const length of [1, 9, 10, 23]) peer.send(new Uint8Array(length));
    await counted('dropsRunt', 4);
  });

  it('survive headers that change while they are checked', async () => {
    await connect(VNET_HDR | TSO | USO);
    const section = new Uint8Array(peer.port.output!.buffer);
    const bytes = new Uint8Array(4096);
    let sent = 0;
    const random = (below: number) => Math.floor(Math.random() * below);
    while (sent < 20_000 || link.stats().dropsHeader < 100) {
      const length = 24 + random(3000);
      const slot = peer.tx.reserve(length);
      if (slot === -1) {
        peer.tx.reclaim();
        peer.port.ring(0, 1);
        continue;
      }
      // IPv4 and TCP, so that some pass the kernel's first checks.
      bytes.set(header(random(4), [0, 1, 4, 5][random(4)]!, random(3100), random(1500), 34, 16));
      bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45], 10);
      section.set(bytes.subarray(0, length), slot);
      // Many invalid headers in a row would reset the link; this test is about single ones.
      if (sent % 8 === 0) section.fill(0, slot, slot + 10);
      peer.tx.commit(length);
      peer.tx.flush();
      sent++;
      if (sent % 8 === 1) continue;
      for (let i = 0; i < 50; i++) section[slot + random(10)] = random(256);
    }
    peer.port.ring(0, 1);
    await counted('rxFrames', sent);
    expect(link.stats()).toMatchObject({ resets: 0, violations: 0 });
    using socket = netns.run(() => openPacketSocket('ivn0'));
    peer.tx.reclaim();
    peer.send(join(NO_HEADER, frame(9)));
    let last: Uint8Array | null;
    do last = socket.receive(2000);
    while (last !== null && last[13] !== 0xb5);
    expect(last).toEqual(frame(9));
  });
});
