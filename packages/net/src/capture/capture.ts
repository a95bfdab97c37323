import { release } from 'node:os';
import { closeFd } from '@ivshmem/linux';
import { type BlockingThread, startBlockingThread } from '@ivshmem/linux/thread';
import { EventFd } from '@ivshmem/linux/wait';
import { ByteRing } from './byte-ring.ts';
import { type CaptureInput, CELL, CELLS, COUNTERS, Counter, DOORBELLS } from './capture-input.ts';
import { DROP_COUNTS, DropRecorder } from './drops.ts';

/** Bytes that may wait for the reader of a capture. */
const RING_SIZE = 2 ** 26;
/** Bytes that the reader gets at once, at most. */
const CHUNK = 2 ** 18;
/** Sections allow no longer frames. */
const NO_LIMIT = 2 ** 18;

/** The shared memory of a link with peers 0 and 1. */
export interface CaptureOptions {
  /** Descriptor of the shared memory, open for reading. The capture takes ownership, also on failure. */
  readonly memory: number;
  readonly maxPeers: number;
  /** In bytes. */
  readonly outputSectionSize: number;
  /** The link's name, for the file. */
  readonly link: string;
  /** The program that writes the file. Default: `ivshmem`. */
  readonly application?: string;
  /** Maximum number of bytes of a frame to capture, with its offload header. Default: all. */
  readonly snapLength?: number;
}

/** What was captured in a direction. */
export interface CaptureCounters {
  readonly frames: number;
  /** Of the captured frames. */
  readonly bytes: number;
  /** Frames that were not captured, since they were overwritten, or the reader of the capture was too slow. */
  readonly missed: number;
  /** Descriptors that no receiver accepts. */
  readonly invalid: number;
}

/** A running capture. */
export interface Capture {
  /** A pcapng file, piece by piece. Ends after {@link close}, with the statistics, or when the capture has failed. */
  bytes(): AsyncGenerator<Uint8Array, void>;
  /** What peer 0 has sent to peer 1, and the other way. */
  counters(): readonly [CaptureCounters, CaptureCounters];
  /**
   * Doorbells of both peers, eventfds, at most four. They wake the capture, which does not clear them. Without any, it looks
   * at the rings every millisecond, and may miss the first frames of a burst. Takes ownership of the descriptors.
   */
  setDoorbells(fds: readonly number[]): void;
  /**
   * The counters of an end (`LinkStats`), as they are now. The frames that it drops from the first call on are mentioned, with the
   * reason, in comments of later frames.
   */
  setDrops(peer: 0 | 1, stats: Readonly<Record<string, number>>): void;
  /** Resolves when the capture has ended: to null after {@link close}, to an Error of one line if it failed. */
  readonly closed: Promise<Error | null>;
  /** Ends the capture. Resolves when everything is released. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Messages of the thread. */
export type CaptureMessage = { readonly type: 'up' } | { readonly type: 'data' };

/**
 * Captures what crosses the rings of a link, by reading its shared memory: neither peer notices, nor takes part. The memory
 * is polled in a thread of the lowest priority, which loses frames rather than slow the peers down. Rejects with SystemCallError
 * or LayoutError if the memory cannot be read, or has no sections for an Ethernet link.
 */
export async function startCapture(options: CaptureOptions): Promise<Capture> {
  const { memory, maxPeers, outputSectionSize, link } = options;
  const { application = 'ivshmem', snapLength = NO_LIMIT } = options;
  const wake = new EventFd();
  const ring = new ByteRing(ByteRing.allocate(RING_SIZE));
  const counters = new Float64Array(new SharedArrayBuffer(2 * COUNTERS * 8));
  const drops = new Float64Array(new SharedArrayBuffer(DROP_COUNTS * 8));
  const recorder = new DropRecorder(drops);
  const cells = new Int32Array(new SharedArrayBuffer(CELLS * 4)).fill(-1, CELL.DOORBELL);
  const system = `Linux ${release()}`;
  const files = { memory, maxPeers, outputSectionSize };
  const texts = { link, application, system };
  const shared = { ring: ring.memory, counters, drops, cells, wakeFd: wake.fd };
  const input: CaptureInput = { ...files, ...texts, ...shared, snapLength };
  let hasEnded = false;
  let onChange = () => {};
  const changed = () => onChange();
  const discardDoorbells = () => {
    for (let i = 0; i < DOORBELLS; i++) {
      const fd = Atomics.exchange(cells, CELL.DOORBELL + i, -1);
      if (fd !== -1) closeFd(fd);
    }
  };
  const starting = startBlockingThread<CaptureMessage>({
    // The same file from src (under a test runner) and from dist.
    file: new URL('../../dist/capture/capture-worker.js', import.meta.url),
    input,
    upWith: 'up',
    receive: changed,
    ended() {
      hasEnded = true;
      discardDoorbells();
      changed();
    },
  });
  let thread: BlockingThread;
  try {
    thread = await starting;
  } catch (error) {
    wake.close();
    throw error;
  } finally {
    closeFd(memory);
  }
  thread.closed.then(() => wake.close());
  return {
    ...thread,
    async *bytes() {
      for (;;) {
        Atomics.store(cells, CELL.NOTIFIED, 0);
        // Before the last look, so that nothing is left behind.
        const isLast = hasEnded;
        const chunk = ring.read(CHUNK);
        ring.release(chunk.length);
        if (chunk.length > 0) yield chunk;
        else if (isLast) return;
        else if (!hasEnded && Atomics.load(cells, CELL.NOTIFIED) === 0) {
          await new Promise<void>((resolve) => {
            onChange = resolve;
          });
        }
      }
    },
    setDrops: (peer, stats) => recorder.record(peer, stats),
    counters: () => [countersOf(counters, 0), countersOf(counters, 1)],
    setDoorbells(fds) {
      if (hasEnded) {
        for (const fd of fds) closeFd(fd);
        return;
      }
      discardDoorbells();
      for (const [i, fd] of fds.entries()) {
        if (i < DOORBELLS) Atomics.store(cells, CELL.DOORBELL + i, fd);
        else closeFd(fd);
      }
      Atomics.store(cells, CELL.RENEWED, 1);
      wake.signal();
    },
  };
}

function countersOf(counters: Float64Array, direction: number): CaptureCounters {
  const at = (name: keyof typeof Counter) => counters[direction * COUNTERS + Counter[name]]!;
  return { frames: at('frames'), bytes: at('bytes'), missed: at('missed'), invalid: at('invalid') };
}
