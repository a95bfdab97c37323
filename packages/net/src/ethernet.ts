import { countersOf, type PortSource } from '@ivshmem/transport';
import type { Observable } from 'rxjs';
import { allocateCounters, type LinkStats, readCounters } from './counters.ts';
import { Inbox } from './ends/inbox.ts';
import { ProgramEnd } from './ends/program.ts';
import { EventLoopLink } from './event-loop-link.ts';
import type { EthernetInfo, LinkStatus } from './link-messages.ts';
import { checkPortAndMtu } from './link-options.ts';

export interface EthernetOptions {
  /** Where the port comes from. */
  readonly port: PortSource;
  /**
   * Bytes, 68 … what the sections allow. By default the one negotiated with the peer, if it supports the MTU extension;
   * otherwise 1500, or less if the sections are small. Source: protocol page, section 15.
   */
  readonly mtu?: number;
  /**
   * Called with each burst of the peer's frames, in order. The frames are valid until the function returns: copy those to
   * be kept. Without it, use {@link Ethernet.receive}. An exception that it throws becomes an uncaught exception of the
   * process, and the link continues.
   */
  readonly onFrames?: (frames: readonly Uint8Array[]) => void;
  /** Whether to wait for the port if it cannot be opened yet, such as for a host server that is started later. */
  readonly wait?: boolean;
}

/** A program's own end of an Ethernet link: frames to and from its peer, which may be a TAP, a driver or a program. */
export interface Ethernet {
  /** The link's properties. They change when it moves to another port, and with its MTU. */
  readonly info: EthernetInfo;
  /** The current properties first, then every change. Completes when the link ends. */
  readonly info$: Observable<EthernetInfo>;
  /** The state of the handshake: the current one first, then every change. Completes when the link ends. */
  readonly state$: Observable<LinkStatus>;
  /** The counters: the current ones first, then once a second. */
  readonly stats$: Observable<LinkStats>;
  /** One line for each noteworthy event: a violation of the protocol, the end of a server. */
  readonly log$: Observable<string>;
  /** The counters now. */
  stats(): LinkStats;
  /**
   * Sends one frame or several: destination, source, EtherType and payload, without checksum, 14 bytes … MTU + 18 (+ 22 if
   * the peer announces its MTU). Resolves when they are in the ring, in order; until then they must not change. While the
   * ring is full or the carrier is off, that does not happen: await it before sending more. Frames that the peer has not
   * received when it disconnects are lost. Rejects with a RangeError if a frame is too short or too long for the MTU, and
   * with an Error when the link ends.
   */
  send(frames: Uint8Array | readonly Uint8Array[]): Promise<void>;
  /**
   * The peer's frames, each a copy. While the consumer handles one, later ones stay in the ring, and the peer has to wait
   * once it is full. Ends when the link is closed, and throws if it failed. Throws an Error if the options have `onFrames`.
   */
  receive(): AsyncIterableIterator<Uint8Array>;
  /** Resolves when the link has ended: to null after {@link close}, to an Error of one line if it failed. */
  readonly closed: Promise<Error | null>;
  /** Ends the link: the peer loses its carrier. Resolves when everything is released. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Opens an Ethernet link for this program's own frames, on its event loop. It needs access to the port, but no thread, no
 * network interface and no privileges. Resolves when the port is open; the peer may connect later. The open link keeps
 * the process alive. Rejects with an Error of one line, having released everything: a RangeError for an invalid option,
 * otherwise the reason why the port cannot be opened or used. Aborting `signal` cancels the wait for the port and rejects
 * with its reason. `log` is called with the lines logged before this resolves.
 */
export async function openEthernet(
  options: EthernetOptions,
  signal?: AbortSignal,
  log: (text: string) => void = () => {},
): Promise<Ethernet> {
  const { port, mtu, wait = false, onFrames } = options;
  checkPortAndMtu(options);
  const { LinkObservables } = await import('./link-observables.ts');
  signal?.throwIfAborted();
  const counters = allocateCounters();
  const end = new ProgramEnd(countersOf(counters));
  const observables = new LinkObservables<EthernetInfo>(log);
  const inbox = new Inbox(end, () => link.wake());
  let opened = () => {};
  const open = new Promise<void>((resolve) => {
    opened = resolve;
  });
  let ended: (failure: Error | null) => void = () => {};
  const closed = new Promise<Error | null>((resolve) => {
    ended = resolve;
  });
  const link = new EventLoopLink({
    port,
    wait,
    mtu,
    counters,
    end,
    report(message) {
      observables.receive(message);
      if (message.type === 'up') opened();
    },
    received: onFrames === undefined ? () => inbox.fill() : () => pass(end.takeBurst(), onFrames),
    ended(failure) {
      end.cancel(failure ?? new Error('the link has been closed'));
      inbox.finish(failure);
      observables.complete();
      ended(failure);
    },
  });
  end.wanted = onFrames !== undefined;
  const close = () => link.close();
  signal?.addEventListener('abort', close);
  link.start();
  const failure = await Promise.race([open, closed]);
  signal?.removeEventListener('abort', close);
  if (signal?.aborted) {
    close();
    await closed;
    signal.throwIfAborted();
  }
  if (failure instanceof Error) throw failure;
  const ethernet: Ethernet = {
    get info() {
      return observables.info;
    },
    info$: observables.info$,
    state$: observables.state$,
    stats$: observables.stats$(counters, closed),
    log$: observables.log$,
    stats: () => readCounters(counters),
    send(frames) {
      const sent = end.send(frames instanceof Uint8Array ? [frames] : frames);
      link.wake();
      return sent;
    },
    receive() {
      if (onFrames !== undefined)
        throw new Error('receive: the frames go to onFrames, an option of this link');
      return inbox.frames();
    },
    closed,
    async close() {
      close();
      await closed;
    },
    [Symbol.asyncDispose]: () => ethernet.close(),
  };
  return ethernet;
}

/** Makes an exception of `onFrames` an uncaught one, as with the listeners of an EventEmitter. */
function pass(burst: readonly Uint8Array[], onFrames: (frames: readonly Uint8Array[]) => void): void {
  if (burst.length === 0) return;
  try {
    onFrames(burst);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
