import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHostServer } from '@ivshmem/host-server';
import { Netns, TAP_MAX_MTU } from '@ivshmem/linux/network';
import { percentile, ping, tcpTransfer } from '@ivshmem/traffic';
import { type LinkEvent, offloadText } from '../output/link-events.ts';
import { PeerProcess } from './peer-process.ts';
import type { Screen } from './screen.ts';

/** Fixed, so that a peer that comes back is still known to the other one's neighbour table. */
const MACS = ['02:00:00:00:00:0a', '02:00:00:00:00:0b'] as const;
const ADDRESSES = ['10.64.0.1', '10.64.0.2'] as const;
const NAMES = ['A', 'B'] as const;
const TAP = 'ivn0';
const OUTPUT_SECTION = 2 * 1024 * 1024;
const SHARED_MEMORY = 8 * 1024 * 1024;
const PINGS = 1000;
const TCP_SECONDS = 3;
const MTUS = [1500, TAP_MAX_MTU] as const;

/** What the demo has measured. Times in µs unless the name says otherwise. */
export interface DemoResult {
  /** ms from the start of both processes until frames pass. */
  linkUpMs: number;
  ping: { sent: number; lost: number; p50: number; p99: number };
  /** By MTU, Gbit/s in each direction. */
  tcp: { mtu: number; aToB: number; bToA: number }[];
  /** ms from the SIGKILL of a peer until the other one noticed, and until frames passed again. */
  crash: { noticedMs: number; downMs: number };
}

/**
 * Two network namespaces, two processes, one link: shows the handshake, measures, kills a peer, and leaves nothing
 * behind, whether it gets to its end, fails, or is aborted.
 */
export async function runDemo(screen: Screen, offload: boolean, signal: AbortSignal): Promise<DemoResult> {
  const cleanups: (() => unknown)[] = [];
  try {
    return await measure(screen, offload, signal, (cleanup) => cleanups.push(cleanup));
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup();
  }
}

async function measure(
  screen: Screen,
  offload: boolean,
  signal: AbortSignal,
  finallyDo: (cleanup: () => unknown) => void,
): Promise<DemoResult> {
  const directory = await mkdtemp(join(tmpdir(), 'ivshmem-demo-')).catch((error: Error) => {
    throw new Error(`${error.message}: set TMPDIR to a directory that can be written to`);
  });
  finallyDo(() => rm(directory, { recursive: true, force: true }));
  const socketPath = join(directory, 'server.sock');
  const server = createHostServer({
    socketPath,
    size: SHARED_MEMORY,
    outputSectionSize: OUTPUT_SECTION,
    maxPeers: 2,
    vectors: 2,
    protocol: 1,
  });
  finallyDo(() => server.close());
  const namespaces = [Netns.create(), Netns.create()] as const;
  for (const netns of namespaces) finallyDo(() => netns.close());

  const peers: PeerProcess[] = [];
  finallyDo(() => Promise.all(peers.map((peer) => peer.stop())));
  const startPeer = (index: 0 | 1, mtu: number, onEvent: (event: LinkEvent) => void) => {
    const options = ['--socket', socketPath, '--tap', TAP, '--netns', namespaces[index].path];
    options.push('--address', `${ADDRESSES[index]}/24`, '--mac', MACS[index], '--mtu', String(mtu));
    if (!offload) options.push('--no-offload');
    peers[index] = new PeerProcess(NAMES[index], options, onEvent);
    return peers[index];
  };

  screen.heading('Link');
  screen.line(`host server on ${socketPath}: 2 peers, output sections of ${OUTPUT_SECTION} bytes`);
  screen.line(`two network namespaces, a TAP (${TAP}) in each, a process for each end of the link`);
  const started = Date.now();
  let showing = true;
  const show = (name: string) => (event: LinkEvent) => {
    if (showing) screen.line(`${String(event.time - started).padStart(5)} ms  ${name}: ${describe(event)}`);
  };
  const startBoth = async (mtu: number) => {
    const up = ([0, 1] as const).map((index) => startPeer(index, mtu, show(NAMES[index])).linkUp(signal));
    return Math.max(...(await Promise.all(up)));
  };
  const linkUpMs = (await startBoth(MTUS[0])) - started;
  showing = false;

  screen.heading(`Ping: ${PINGS} echo requests`);
  const echo = await ping({
    netns: namespaces[0].path,
    to: ADDRESSES[1],
    count: PINGS,
    onProgress: ({ received }) => screen.progress(`${received} of ${PINGS}`, received / PINGS),
    signal,
  });
  const p50 = percentile(echo.rttsMicroseconds, 50);
  const p99 = percentile(echo.rttsMicroseconds, 99);
  screen.line(`${echo.lost} lost, round trip ${p50.toFixed(0)} µs (p50), ${p99.toFixed(0)} µs (p99)`);

  const tcp: DemoResult['tcp'] = [];
  for (const mtu of MTUS) {
    screen.heading(`TCP at MTU ${mtu}: ${TCP_SECONDS} s in each direction`);
    if (mtu !== MTUS[0]) {
      await Promise.all(peers.map((peer) => peer.stop()));
      await startBoth(mtu);
    }
    const transfer = async (from: 0 | 1, to: 0 | 1) => {
      const begin = performance.now();
      const name = from === 0 ? 'A to B' : 'B to A';
      const { bitsPerSecond } = await tcpTransfer({
        from: namespaces[from].path,
        to: namespaces[to].path,
        address: ADDRESSES[to],
        seconds: TCP_SECONDS,
        onProgress: ({ bytes }) => {
          const seconds = (performance.now() - begin) / 1000;
          screen.progress(`${name}: ${gbits((bytes * 8) / seconds)}`, seconds / TCP_SECONDS);
        },
        signal,
      });
      screen.line(`${name}: ${gbits(bitsPerSecond)}`);
      return bitsPerSecond / 1e9;
    };
    tcp.push({ mtu, aToB: await transfer(0, 1), bToA: await transfer(1, 0) });
  }

  screen.heading('Crash: B is killed (SIGKILL) and started again');
  const noticed = peers[0]!.next(
    (event): event is Extract<LinkEvent, { event: 'state' }> => event.event === 'state' && !event.carrier,
    signal,
  );
  const killed = await peers[1]!.crash();
  const noticedMs = (await noticed).time - killed;
  screen.line(`A noticed after ${noticedMs} ms`);
  showing = true;
  startPeer(1, MTUS[1], show(NAMES[1]));
  const upAgain = Math.max(await peers[0]!.linkUp(signal), await peers[1]!.linkUp(signal));
  showing = false;
  const reply = await ping({ netns: namespaces[0].path, to: ADDRESSES[1], count: 10, intervalMs: 1, signal });
  if (reply.received === 0) throw new Error('the link came back, but no echo reply did');
  const downMs = upAgain - killed;
  screen.line(`the link was down for ${downMs} ms, the start of a process included`);

  return {
    linkUpMs,
    ping: { sent: echo.sent, lost: echo.lost, p50, p99 },
    tcp,
    crash: { noticedMs, downMs },
  };
}

export function gbits(bitsPerSecond: number): string {
  return `${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`;
}

function describe(event: LinkEvent): string {
  switch (event.event) {
    case 'up':
      return `peer ${event.id}, MTU ${event.mtu}, rings of ${event.queueLength}`;
    case 'state':
      return `${event.local.padEnd(5)}  sees ${event.peer}${event.carrier ? `  carrier on, ${offloadText(event.offloads)}` : ''}`;
    case 'log':
      return event.text;
    case 'stats':
      return `${event.txFrames} frames sent, ${event.rxFrames} received`;
  }
}
