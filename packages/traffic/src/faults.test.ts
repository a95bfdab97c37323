import { read, write } from '@ivshmem/linux';
import { type Mapping, mapPrivate } from '@ivshmem/linux/memory';
import {
  addAddress,
  missingNetworkPrivilege,
  Netns,
  openTap,
  setInterface,
  setIpv6,
  type Tap,
  waitForInterface,
} from '@ivshmem/linux/network';
import { EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ping } from './ping.ts';
import { tcpTransfer } from './tcp.ts';
import { udpTransfer } from './udp.ts';
import { udpEcho } from './udp-echo.ts';
import { connectByVeth } from './veth.ts';

const missing = missingNetworkPrivilege();

const ETHERNET = 14;
const IPV4 = 20;
const PROTOCOL_AT = ETHERNET + 9;
const TRANSPORT_AT = ETHERNET + IPV4;
const ICMP = 1;
const TCP = 6;
const UDP = 17;
const UDP_PAYLOAD_AT = TRANSPORT_AT + 8;

/** Maps a frame to the frames that come out at the other end. */
type Fault = (frame: Buffer) => Buffer[];

const protocolOf = (frame: Buffer) => (frame.readUInt16BE(12) === 0x0800 ? frame[PROTOCOL_AT] : 0);
const faultless: Fault = (frame) => [frame];

/** A wire between two namespaces that passes each frame through `fault`, so that a test knows what happened to it. */
class Wire {
  readonly a = Netns.create();
  readonly b = Netns.create();
  fault: Fault = faultless;
  readonly #memory: Mapping = mapPrivate(65536);
  readonly #taps: Tap[];

  constructor() {
    this.#taps = [
      this.#end(this.a, '10.9.0.1/24', '02:00:00:00:00:01'),
      this.#end(this.b, '10.9.0.2/24', '02:00:00:00:00:02'),
    ];
    this.#taps.forEach((tap, i) => {
      mainPoller.add(tap.fd, EPOLLIN, () => this.#forward(tap, this.#taps[1 - i]!));
    });
  }

  #end(netns: Netns, address: string, mac: string): Tap {
    return netns.run(() => {
      const tap = openTap('t0');
      setIpv6('t0', false);
      setInterface('t0', { mac, up: true });
      addAddress('t0', address);
      return tap;
    });
  }

  #forward(from: Tap, to: Tap): void {
    const { address, buffer } = this.#memory;
    const length = read(from.fd, address, 65536);
    if (length <= 0) return;
    const bytes = Buffer.from(buffer);
    for (const frame of this.fault(Buffer.from(bytes.subarray(0, length)))) {
      frame.copy(bytes);
      write(to.fd, address, frame.length);
    }
  }

  close(): void {
    for (const tap of this.#taps) {
      mainPoller.remove(tap.fd);
      tap.close();
    }
    this.#memory.close();
    this.a.close();
    this.b.close();
  }
}

describe.skipIf(missing !== null)(`faults of the wire are counted ${missing ?? ''}`, () => {
  let wire: Wire;

  beforeEach(() => {
    wire = new Wire();
  });

  afterEach(() => {
    wire.close();
  });

  it('of a ping', async () => {
    wire.fault = (frame) => {
      // Answers only: the other end's kernel would not answer a damaged request.
      if (protocolOf(frame) !== ICMP || frame[TRANSPORT_AT] !== 0) return [frame];
      switch (frame.readUInt16BE(TRANSPORT_AT + 6)) {
        case 1:
          return [];
        case 2:
          return [frame, frame];
        case 3:
          frame[frame.length - 1]! ^= 0x80;
          return [frame];
        default:
          return [frame];
      }
    };
    const result = await ping({ netns: wire.a.path, to: '10.9.0.2', count: 6, size: 100, timeoutMs: 200 });
    expect(result).toMatchObject({ sent: 6, received: 4, lost: 1, duplicates: 1, corrupted: 1 });
    expect(result.rttsMicroseconds).toHaveLength(4);
  });

  it('of datagrams', async () => {
    let held: Buffer | undefined;
    wire.fault = (frame) => {
      if (protocolOf(frame) !== UDP) return [frame];
      switch (frame.readUInt32LE(UDP_PAYLOAD_AT)) {
        case 1:
          return [];
        case 2:
          return [frame, frame];
        case 3:
          frame[UDP_PAYLOAD_AT + 50]! ^= 1;
          // No checksum, or the kernel would drop it.
          frame.writeUInt16BE(0, TRANSPORT_AT + 6);
          return [frame];
        case 5:
          held = frame;
          return [];
        case 6:
          return [frame, held!];
        default:
          return [frame];
      }
    };
    const transfer = {
      from: wire.a.path,
      to: wire.b.path,
      address: '10.9.0.2',
      size: 200,
      count: 10,
      rate: 1000,
    };
    const expected = { sent: 10, received: 8, lost: 1, reordered: 1, duplicates: 1 };
    expect(await udpTransfer({ ...transfer, verify: true })).toMatchObject({ ...expected, corrupted: 1 });
  });

  it('of echoed datagrams', async () => {
    wire.fault = (frame) =>
      protocolOf(frame) === UDP && frame.readUInt32LE(UDP_PAYLOAD_AT) === 2 ? [] : [frame];
    const options = {
      client: wire.a.path,
      server: wire.b.path,
      address: '10.9.0.2',
      count: 4,
      timeoutMs: 200,
    };
    expect(await udpEcho(options)).toMatchObject({ sent: 4, received: 3, lost: 1, corrupted: 0 });
  });

  it('of a stream: changed bytes that TCP does not detect', async () => {
    let changed = 0;
    wire.fault = (frame) => {
      if (protocolOf(frame) === TCP && frame.length > 1000 && changed++ === 3) {
        // Swapping two words leaves the checksum the same.
        const at = frame.length - 400;
        const word = frame.readUInt16BE(at);
        frame.writeUInt16BE(frame.readUInt16BE(at + 200), at);
        frame.writeUInt16BE(word, at + 200);
      }
      return [frame];
    };
    const transfer = {
      from: wire.a.path,
      to: wire.b.path,
      address: '10.9.0.2',
      bytes: 300_000,
      verify: true,
    };
    expect(await tcpTransfer(transfer)).toMatchObject({ bytes: 300_000, checksumOk: false });
    wire.fault = faultless;
    expect(await tcpTransfer(transfer)).toMatchObject({ bytes: 300_000, checksumOk: true });
  });

  it('but not lost segments: TCP retransmits them', async () => {
    let segments = 0;
    wire.fault = (frame) =>
      protocolOf(frame) === TCP && frame.length > 1000 && segments++ % 50 === 7 ? [] : [frame];
    const transfer = {
      from: wire.a.path,
      to: wire.b.path,
      address: '10.9.0.2',
      bytes: 300_000,
      verify: true,
    };
    expect(await tcpTransfer(transfer)).toMatchObject({ bytes: 300_000, checksumOk: true });
    expect(segments).toBeGreaterThan(100);
  });

  it('and a connection without a reply can be aborted', async () => {
    wire.fault = () => [];
    const signal = AbortSignal.timeout(300);
    const transfer = { from: wire.a.path, to: wire.b.path, address: '10.9.0.2', bytes: 1, signal };
    await expect(tcpTransfer(transfer)).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  it('and aborting a transfer on a dead wire keeps no namespace alive', async () => {
    // A veth pair from the sender's namespace to one that stays is deleted with the sender's namespace.
    using witness = Netns.create();
    connectByVeth(witness, wire.a, { names: ['witness', 'witness'] });
    const controller = new AbortController();
    let segments = 0;
    wire.fault = (frame) => {
      if (protocolOf(frame) !== TCP || segments++ < 50) return [frame];
      setImmediate(() => controller.abort());
      return [];
    };
    const { signal } = controller;
    const transfer = { from: wire.a.path, to: wire.b.path, address: '10.9.0.2', seconds: 60, signal };
    await expect(tcpTransfer(transfer)).rejects.toMatchObject({ name: 'AbortError' });
    wire.close();
    witness.run(() => waitForInterface('witness', (found) => found === null, 5000));
  });
});
