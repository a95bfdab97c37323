import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { SystemCallError } from '../errors.ts';
import { setNonBlocking } from '../fd.ts';
import * as libc from '../libc.ts';

/** Bytes that may wait for the reader; lines beyond that are dropped. */
const CAPACITY = 1 << 20;
/** Time between two attempts while the reader does not read, in ms. */
const RETRY = 50;
/** How long {@link Output.close} waits for the reader, in ms. */
const PATIENCE = 1000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** Standard output or standard error of a process that must not wait for its reader. */
export interface Output {
  /** Writes a line, with its end. Never waits. */
  write(line: string): void;
  /** The line, with its end, that stands for a number of lines that were dropped. By default it is text. */
  dropped: (lines: number) => string;
  /** Resolves when all is written, at the latest after a second. Nothing is written after that. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Writes to a descriptor without ever waiting for its reader: a pipe that nothing reads, a terminal stopped by Ctrl-S. What
 * does not fit into 1 MiB is dropped, and a line says how many lines that were. Errors such as EPIPE drop lines, too.
 */
export function openOutput(fd: number): Output {
  const { write, closeOwn } = nonBlockingWriter(fd);
  let waiting: Uint8Array[] = [];
  let length = 0;
  /** How many lines `waiting` holds, or reports as dropped. */
  let lines = 0;
  let dropped = 0;
  let isOpen = true;
  let timer: NodeJS.Timeout | undefined;
  let onIdle = () => {};

  const push = (text: string, count: number) => {
    const bytes = Buffer.from(text);
    waiting.push(bytes);
    length += bytes.length;
    lines += count;
  };
  const reportDropped = () => {
    if (dropped > 0) push(output.dropped(dropped), dropped);
    dropped = 0;
  };
  const discard = () => {
    dropped += lines;
    lines = 0;
    length = 0;
    waiting = [];
  };
  /** Writes what can be written now. */
  const flush = () => {
    timer = undefined;
    try {
      while (waiting.length > 0) {
        const bytes = waiting.length === 1 ? waiting[0]! : Buffer.concat(waiting);
        waiting = [bytes];
        const written = write(bytes);
        length -= written;
        waiting = written === bytes.length ? [] : [bytes.subarray(written)];
        if (waiting.length > 0) continue;
        lines = 0;
        reportDropped();
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') timer = setTimeout(flush, RETRY);
      else discard();
    }
    if (timer === undefined) onIdle();
  };

  const output: Output = {
    dropped: (lines) => `${lines} lines were dropped, since nothing read them\n`,
    write(line) {
      if (!isOpen) return;
      // After a gap, only when there is room for more than a line or two.
      const limit = dropped === 0 ? CAPACITY : CAPACITY / 2;
      if (length + line.length > limit && length > 0) {
        dropped++;
        return;
      }
      reportDropped();
      push(line, 1);
      if (timer === undefined) flush();
    },
    async close() {
      if (!isOpen) return;
      isOpen = false;
      if (timer !== undefined) {
        const patience = setTimeout(() => onIdle(), PATIENCE);
        await new Promise<void>((resolve) => {
          onIdle = resolve;
        });
        clearTimeout(patience);
        clearTimeout(timer);
      }
      closeOwn();
    },
    [Symbol.asyncDispose]: () => output.close(),
  };
  return output;
}

/**
 * O_NONBLOCK belongs to the open file, which other processes have, too. Pipes and terminals are therefore opened again. If
 * that is not possible, the shared one becomes non-blocking; Node undoes that at its end. Files on disks never wait.
 */
function nonBlockingWriter(fd: number): { write: (bytes: Uint8Array) => number; closeOwn: () => void } {
  const status = fstatSync(fd);
  if (status.isSocket()) return { write: (bytes) => sendNow(fd, bytes), closeOwn() {} };
  if (!status.isFIFO() && !status.isCharacterDevice()) {
    return { write: (bytes) => writeSync(fd, bytes), closeOwn() {} };
  }
  try {
    const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
    const own = openSync(`/proc/self/fd/${fd}`, flags);
    return { write: (bytes) => writeSync(own, bytes), closeOwn: () => closeSync(own) };
  } catch {
    setNonBlocking(fd);
    return { write: (bytes) => writeSync(fd, bytes), closeOwn() {} };
  }
}

/** A socket: that of the journal, or of another program. */
function sendNow(fd: number, bytes: Uint8Array): number {
  const sent = libc.sendto(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL, null, 0);
  if (sent === -1) throw new SystemCallError('sendto', `fd ${fd}`, libc.errno());
  return sent;
}
