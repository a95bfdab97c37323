import { readdirSync } from 'node:fs';
import { mapShared } from '@ivshmem/linux/memory';
import { Epoll } from '@ivshmem/linux/wait';
import { Loopback, LoopbackPort } from '@ivshmem/transport';
import { announcedCapabilities, announcedMtu, ringLayout, State } from '@ivshmem/transport/protocol';
import { filter, firstValueFrom } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Ethernet, type EthernetOptions, openEthernet } from './ethernet.ts';
import { frame } from './hand-peer.test-support.ts';

const SECTION = 0x10000;
const layout = ringLayout(SECTION);

const numberOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(14);

describe('openEthernet', () => {
  let loopback: Loopback;
  const links: Ethernet[] = [];

  beforeEach(() => {
    loopback = new Loopback({ outputSectionSize: SECTION });
  });

  afterEach(async () => {
    for (const link of links.splice(0)) await link.close();
    loopback.close();
  });

  const open = async (end: 0 | 1, options: Partial<EthernetOptions> = {}) => {
    const link = await openEthernet({ port: { type: 'loopback', end: loopback.ends[end] }, ...options });
    links.push(link);
    return link;
  };
  const carrier = (link: Ethernet, wanted = true) =>
    firstValueFrom(link.state$.pipe(filter((status) => status.carrier === wanted)));

  it('carries frames both ways, in order and unchanged', async () => {
    const a = await open(0);
    const b = await open(1);
    expect(a.info).toEqual({
      id: 0,
      mtu: layout.defaultMtu,
      outputSectionSize: SECTION,
      queueLength: layout.length,
      vectors: 2,
    });
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const sent = Array.from({ length: 1000 }, (_, i) => frame(i, 60 + (i % 1400)));
      const sending = from.send(sent);
      let next = 0;
      for await (const received of to.receive()) {
        if (Buffer.compare(received, sent[next++]!) !== 0) throw new Error(`frame ${next - 1} has changed`);
        if (next === sent.length) break;
      }
      await sending;
    }
    expect(a.stats()).toMatchObject({ txFrames: 1000, rxFrames: 1000, violations: 0 });
  });

  it('keeps frames until there is a peer', async () => {
    const a = await open(0);
    let done = false;
    const sending = a.send(frame(7)).then(() => {
      done = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(done).toBe(false);
    const b = await open(1);
    const { value } = await b.receive().next();
    expect(value).toEqual(frame(7));
    await sending;
  });

  it('calls onFrames with bursts', async () => {
    let count = 0;
    let bursts = 0;
    let all = () => {};
    const complete = new Promise<void>((resolve) => {
      all = resolve;
    });
    const b = await open(1, {
      onFrames(frames) {
        bursts++;
        for (const received of frames) expect(numberOf(received)).toBe(count++);
        if (count === 500) all();
      },
    });
    const a = await open(0);
    await a.send(Array.from({ length: 500 }, (_, i) => frame(i)));
    await complete;
    expect(bursts).toBeLessThan(100);
    expect(() => b.receive()).toThrow(/^receive: [^\n]*onFrames/);
  });

  it('can send from within onFrames', async () => {
    const echo: { link?: Ethernet } = {};
    echo.link = await open(1, {
      onFrames: (frames) => void echo.link!.send(frames.map((received) => received.slice())),
    });
    const a = await open(0);
    const answers = a.receive();
    for (let i = 0; i < 100; i++) {
      await a.send(frame(i));
      expect((await answers.next()).value).toEqual(frame(i));
    }
  });

  it('continues if onFrames throws, which becomes an uncaught exception', async () => {
    const uncaught: unknown[] = [];
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => uncaught.push(error));
    try {
      const seen: number[] = [];
      await open(1, {
        onFrames([received]) {
          seen.push(numberOf(received!));
          throw new Error('of the program');
        },
      });
      const a = await open(0);
      for (let i = 0; i < 2; i++) {
        await a.send(frame(i));
        await vi.waitFor(() => expect(uncaught).toHaveLength(i + 1), 10_000);
      }
      expect(seen).toEqual([0, 1]);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
  });

  it('applies backpressure to the sender while nothing is received', async () => {
    const a = await open(0);
    const b = await open(1);
    await carrier(a);
    let sent = 0;
    let stop = false;
    const sending = (async () => {
      for (; !stop; sent++) await a.send(frame(sent, 1000));
    })();
    // A full ring, and one burst at the receiver once it has requested a frame.
    await vi.waitFor(() => expect(a.stats().ringFull).toBeGreaterThan(0), 10_000);
    const frames = b.receive();
    expect(numberOf((await frames.next()).value!)).toBe(0);
    await vi.waitFor(() => expect(a.stats().ringFull).toBeGreaterThan(1), 10_000);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(b.stats().rxFrames).toBeLessThanOrEqual(64);
    expect(sent).toBeLessThanOrEqual(64 + layout.length);
    // Sending continues as frames are received, without loss.
    for (let i = 1; i < 2000; i++) expect(numberOf((await frames.next()).value!)).toBe(i);
    stop = true;
    while (b.stats().rxFrames < sent) await frames.next();
    await sending;
  });

  it('sends frames from 14 bytes up to what the MTU allows, and rejects others in one line', async () => {
    const a = await open(0, { mtu: 1500 });
    const b = await open(1);
    await carrier(a);
    expect(b.info.mtu).toBe(1500);
    const frames = b.receive();
    // Room for two VLAN tags, since the peer announces its MTU.
    for (const length of [14, 1514, 1522]) {
      await a.send(frame(1, length));
      expect((await frames.next()).value).toEqual(frame(1, length));
    }
    for (const length of [0, 13, 1523, 100_000]) {
      const problem = new RegExp(`^frame of ${length} bytes: must have 14 to 1522 bytes at this MTU$`);
      await expect(a.send([frame(1), frame(1, length)])).rejects.toThrow(problem);
    }
    await expect(a.send('text' as never)).rejects.toThrow(/^frame: must be a Uint8Array$/);
    await a.send([]);
    expect(a.stats()).toMatchObject({ txFrames: 3 });
  });

  it('announces its MTU, and no offloads', async () => {
    const a = await open(0, { mtu: 1400 });
    await open(1);
    await carrier(a);
    using epoll = new Epoll();
    using port = new LoopbackPort(loopback.ends[1], epoll);
    const section = port.input(0)!;
    expect(announcedMtu(section, layout)).toEqual({ bytes: 1400, set: true });
    expect(announcedCapabilities(section, layout)).toBe(0);
  });

  it('ends pending calls when it is closed, even by a subscriber', async () => {
    const before = readdirSync('/proc/self/fd').length;
    const a = await open(0);
    const b = await open(1);
    const received = b.receive().next();
    a.state$.pipe(filter((status) => status.carrier)).subscribe(() => void a.close());
    const sending = a.send(frame(1));
    expect(await a.closed).toBeNull();
    await sending.catch((error: Error) => expect(error.message).toBe('the link has been closed'));
    await expect(a.send(frame(1))).rejects.toThrow(/^the link has been closed$/);
    await a.close();
    await carrier(b, false);
    const pending = b.send([frame(1)]);
    await Promise.all([expect(pending).rejects.toThrow(/^the link has been closed$/), b.close()]);
    await received;
    // The poller of the event loop keeps its own descriptors.
    expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before + 2);
  });

  it('is released at the end of its scope', async () => {
    let closed: Promise<Error | null>;
    {
      await using link = await openEthernet({ port: { type: 'loopback', end: loopback.ends[0] } });
      closed = link.closed;
    }
    expect(await closed).toBeNull();
  });

  it('rejects invalid options and leaves nothing behind', async () => {
    const before = readdirSync('/proc/self/fd').length;
    const port = { type: 'loopback', end: loopback.ends[0] } as const;
    await expect(openEthernet({ port, mtu: 60_000 })).rejects.toThrow(/^MTU 60000: [^\n]+$/);
    await expect(openEthernet({ port, mtu: 20 })).rejects.toThrow(/^MTU 20: must be 68 to [^\n]+$/);
    const nowhere = { type: 'server', socketPath: '/nonexistent/socket' } as const;
    await expect(openEthernet({ port: nowhere })).rejects.toThrow(/ENOENT/);
    const aborted = AbortSignal.abort(new Error('enough'));
    await expect(openEthernet({ port: nowhere, wait: true }, aborted)).rejects.toThrow(/^enough$/);
    const controller = new AbortController();
    const waiting = openEthernet({ port: nowhere, wait: true }, controller.signal, () =>
      controller.abort(new Error('enough')),
    );
    await expect(waiting).rejects.toThrow(/^enough$/);
    expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before + 2);
  });

  describe('with a hostile peer', () => {
    let words: Uint16Array;
    let table: ReturnType<typeof mapShared>;
    let epoll: Epoll;
    let port: LoopbackPort;

    beforeEach(() => {
      epoll = new Epoll();
      port = new LoopbackPort(loopback.ends[1], epoll);
      words = new Uint16Array(port.output!.buffer);
      table = mapShared(loopback.ends[1].memoryFd, 4096, { write: true });
    });

    afterEach(() => {
      table.close();
      port.close();
      epoll.close();
    });

    it('resets on a violation, with one line, and comes up again', async () => {
      const a = await open(0, { onFrames() {} });
      const lines: string[] = [];
      a.log$.subscribe((line) => lines.push(line));
      const b = await open(1);
      await carrier(a);
      words[layout.avail / 2 + 1] = 5000;
      port.ring(0, 1);
      await vi.waitFor(() => expect(a.stats().violations).toBe(1), 10_000);
      expect(lines).toEqual([
        expect.stringMatching(/^the peer violates the protocol: avail\.idx .*; the link is reset$/),
      ]);
      await carrier(a);
      await b.send(frame(3));
      await vi.waitFor(() => expect(a.stats().rxFrames).toBeGreaterThan(0), 10_000);
      expect(a.stats().invalidPeerStates).toBe(0);
    });

    it('survives rings and states full of noise', async () => {
      const a = await open(0, { onFrames() {} });
      void a.send(Array.from({ length: 100_000 }, (_, i) => frame(i))).catch(() => {});
      const states = new Uint32Array(table.buffer);
      let seed = 1;
      const random = () => {
        seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
        return seed >>> 8;
      };
      for (let i = 0; i < 300; i++) {
        for (let j = 0; j < 100; j++) words[random() % (layout.data / 2)] = random();
        states[1] = [State.RESET, State.INIT, State.READY, State.RUN, random()][random() % 5]!;
        port.ring(0, 0);
        port.ring(0, 1);
        await new Promise((resolve) => setImmediate(resolve));
      }
      states[1] = State.RESET;
      port.ring(0, 0);
      const b = await open(1);
      const { value } = await b.receive().next();
      expect(value!.length).toBe(60);
      await a.close();
      expect(await a.closed).toBeNull();
    });
  });
});
