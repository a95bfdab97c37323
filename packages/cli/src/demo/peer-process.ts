import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { LinkEvent } from '../output/link-events.ts';

// The same file from src (under a test runner) and from dist.
const COMMAND = fileURLToPath(new URL('../../dist/bin/ivshmem.js', import.meta.url));

/** One end of the demo's link: `ivshmem net` in a process of its own, followed by what it prints. */
export class PeerProcess {
  readonly name: string;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #events = new EventEmitter<{ event: [LinkEvent] }>();
  readonly #exited: Promise<unknown>;
  #complaint = '';
  #last: Extract<LinkEvent, { event: 'state' }> | undefined;

  constructor(name: string, options: readonly string[], onEvent: (event: LinkEvent) => void) {
    this.name = name;
    // In a process group of its own: Ctrl-C reaches the demo alone, which then ends it in order.
    this.#child = spawn(process.execPath, [COMMAND, 'net', '--json', '--until-eof', ...options], {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    this.#child.stdin.on('error', () => {});
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#complaint += text;
    });
    createInterface(this.#child.stdout).on('line', (line) => {
      const event: LinkEvent = JSON.parse(line);
      if (event.event === 'state') this.#last = event;
      onEvent(event);
      this.#events.emit('event', event);
    });
    this.#exited = once(this.#child, 'close');
  }

  /** Resolves with the next event for which `matches` holds; rejects when the process ends before, or on `signal`. */
  next<E extends LinkEvent>(matches: (event: LinkEvent) => event is E, signal: AbortSignal): Promise<E> {
    return new Promise<E>((resolve, reject) => {
      const finish = () => {
        this.#events.off('event', onEvent);
        signal.removeEventListener('abort', onAbort);
      };
      // Many events can come in one go: a listener that is put back after each would miss some.
      const onEvent = (event: LinkEvent) => {
        if (!matches(event)) return;
        finish();
        resolve(event);
      };
      const onAbort = () => {
        finish();
        reject(signal.reason);
      };
      this.#events.on('event', onEvent);
      signal.addEventListener('abort', onAbort);
      if (signal.aborted) onAbort();
      this.#exited.then(() => {
        finish();
        reject(new Error(`peer ${this.name} ended: ${this.#complaint.trim() || 'killed'}`));
      });
    });
  }

  /** Resolves, with the time in ms since 1970, when both sides run. */
  async linkUp(signal: AbortSignal): Promise<number> {
    if (this.#last?.carrier) return this.#last.time;
    const isUp = (event: LinkEvent): event is Extract<LinkEvent, { event: 'state' }> =>
      event.event === 'state' && event.carrier;
    return (await this.next(isUp, signal)).time;
  }

  /** Ends it without a warning, as a crash would. Resolves with the time of the kill, in ms since 1970. */
  async crash(): Promise<number> {
    const time = Date.now();
    this.#child.kill('SIGKILL');
    await this.#exited;
    return time;
  }

  /** Ends it in order. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    this.#child.stdin.end();
    await this.#exited;
  }
}
