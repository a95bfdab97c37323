import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import { createHostServer } from '@ivshmem/host-server';
import { missingNetworkPrivilege, Netns } from '@ivshmem/linux/network';
import { createLink, type Ethernet, type Link, openEthernet } from '@ivshmem/net';
import { percentile, ping } from '@ivshmem/traffic';
import { filter, firstValueFrom } from 'rxjs';
import { isInsideUserNamespace, runInUserNamespace, userNamespaceProblem } from '../user-namespace.ts';
import { type Check, failure, ok, warning } from './check.ts';

const ADDRESSES = ['10.64.0.1', '10.64.0.2'] as const;
const FRAMES = 100;
const PINGS = 100;
/** Time limit for each trial, in ms: an unloaded machine needs half a second. */
const TIMEOUT = 30_000;
const RINGS = 'rings';
const LINK = 'link';

/** A host server at a socket of its own, while `use` runs with the port of a peer. */
async function withServer<T>(
  use: (port: { readonly type: 'server'; readonly socketPath: string }) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'ivshmem-doctor-')).catch((error: Error) => {
    throw new Error(`${error.message}: set TMPDIR to a directory that can be written to`);
  });
  try {
    const socketPath = join(directory, 'server.sock');
    await using server = createHostServer({
      socketPath,
      size: 2 ** 22,
      outputSectionSize: 2 ** 20,
      maxPeers: 2,
      vectors: 2,
      protocol: 1,
    });
    return await use({ type: 'server', socketPath: server.options.socketPath });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Runs one trial. Its text is that of the check, and an error becomes a failure. */
async function attempt(
  name: string,
  signal: AbortSignal,
  run: (signal: AbortSignal) => Promise<string>,
): Promise<Check> {
  const timeout = AbortSignal.timeout(TIMEOUT);
  try {
    return ok(name, await run(AbortSignal.any([signal, timeout])));
  } catch (error) {
    signal.throwIfAborted();
    const reason = timeout.aborted ? `not within ${TIMEOUT / 1000} s` : (error as Error).message;
    const remedy = 'docs/troubleshooting.md lists causes and remedies; the lines above may name the cause';
    return failure(name, `a trial failed: ${reason}`, remedy);
  }
}

/** Waits for a promise; rejects on `signal`. */
function unlessAborted<T>(awaited: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort);
    awaited.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
    if (signal.aborted) onAbort();
  });
}

/** Resolves when both ends are up. */
function carrier(ends: readonly (Link | Ethernet)[], signal: AbortSignal): Promise<unknown> {
  const up = ends.map(({ state$ }) => firstValueFrom(state$.pipe(filter((state) => state.carrier))));
  return unlessAborted(Promise.all(up), signal);
}

/** Memory, descriptors and doorbells: all that a link needs but its interfaces. */
export function tryRings(signal: AbortSignal): Promise<Check> {
  return attempt(RINGS, signal, (stop) =>
    withServer(async (port) => {
      let received = 0;
      let arrived = () => {};
      const all = new Promise<void>((resolve) => {
        arrived = resolve;
      });
      const onFrames = (frames: readonly Uint8Array[]) => {
        received += frames.length;
        if (received >= FRAMES) arrived();
      };
      await using sender = await openEthernet({ port }, stop);
      await using receiver = await openEthernet({ port, onFrames }, stop);
      await carrier([sender, receiver], stop);
      const frame = new Uint8Array(60);
      for (let i = 0; i < FRAMES; i++) await sender.send(frame);
      await unlessAborted(all, stop);
      return `${received} of ${FRAMES} frames passed through shared memory`;
    }),
  );
}

/** Two interfaces in two network namespaces, in this process. */
function tryTaps(signal: AbortSignal): Promise<Check> {
  return attempt(LINK, signal, (stop) =>
    withServer(async (port) => {
      using here = Netns.create();
      using there = Netns.create();
      const start = performance.now();
      const end = (netns: Netns, address: string) =>
        createLink({ port, tap: 'ivn0', netns: netns.path, addresses: [`${address}/24`] }, stop);
      await using one = await end(here, ADDRESSES[0]);
      await using other = await end(there, ADDRESSES[1]);
      await carrier([one, other], stop);
      const up = performance.now() - start;
      const { received, rttsMicroseconds } = await ping({
        netns: here.path,
        to: ADDRESSES[1],
        count: PINGS,
        signal: stop,
      });
      if (received === 0) throw new Error(`none of ${PINGS} pings was answered`);
      const p50 = percentile(rttsMicroseconds, 50).toFixed(0);
      return `two interfaces were connected in ${up.toFixed(0)} ms; ${received} of ${PINGS} pings answered, round trip ${p50} µs (p50)`;
    }),
  );
}

/** Two interfaces: in this process if the privileges suffice, else in a user namespace. */
export async function tryInterfaces(signal: AbortSignal): Promise<Check> {
  const missing = missingNetworkPrivilege();
  if (missing === null || isInsideUserNamespace()) return tryTaps(signal);
  if (process.getuid?.() === 0 || userNamespaceProblem() !== null) {
    return warning(
      LINK,
      `two interfaces were not tried: ${missing}`,
      'run this as root, with the failures above resolved',
    );
  }
  return await tryTapsInUserNamespace(signal);
}

/** The same command in a user namespace prints the result of {@link tryTaps} alone. */
async function tryTapsInUserNamespace(signal: AbortSignal): Promise<Check> {
  const child = runInUserNamespace(['pipe', 'pipe', 'pipe'], signal);
  const ended = once(child, 'close');
  const [stdout, stderr] = await Promise.all([textOf(child.stdout!), textOf(child.stderr!), ended]);
  signal.throwIfAborted();
  try {
    const { checks } = JSON.parse(stdout) as { checks: Check[] };
    const check = checks.find(({ name }) => name === LINK)!;
    return check.status === 'ok' ? ok(LINK, `in a user namespace, ${check.text}`) : check;
  } catch {
    const [line = 'no answer'] = stderr.trim().split('\n');
    return failure(LINK, `a trial in a user namespace failed: ${line}`, 'run this as root');
  }
}
