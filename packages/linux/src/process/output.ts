import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { SystemCallError } from '../errors.ts';
import { setNonBlocking } from '../fd.ts';
import * as libc from '../libc.ts';

/** Maximum number of buffered bytes; further lines are dropped. */
const CAPACITY = 1 << 20;
/** Retry interval while the reader does not read, in ms. */
const RETRY = 50;
/** Time limit for {@link Output.close} to flush, in ms. */
const PATIENCE = 1000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** Standard output or standard error of a process that must not block on its reader. */
export interface Output {
  /** Writes a line, which includes its newline. Never blocks. */
  write(line: string): void;
  /** Returns the line to write in place of dropped lines, with its newline. Default: plain text. */
  dropped: (lines: number) => string;
  /** Flushes the buffer, for at most one second. Nothing is written afterwards. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Writes to a descriptor without blocking, even if a pipe is not read or a terminal is stopped by Ctrl-S. Lines beyond a buffer
 * of 1 MiB are dropped, and one line reports their number. Errors such as EPIPE drop lines, too.
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
    dropped: (lines) => `${lines} lines dropped: output not read\n`,
    write(line) {
      if (!isOpen) return;
      // After dropping lines, resume only when there is room for more than a line or two.
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

/** Writes to a descriptor. Throws an error with code EAGAIN if its reader leaves no room, EPIPE if it has gone. */
export interface NonBlockingWriter {
  /** Returns how many bytes were written. */
  write(bytes: Uint8Array): number;
  /** Closes what was opened for writing; the descriptor itself stays open. */
  closeOwn(): void;
}

/**
 * O_NONBLOCK belongs to the open file description, which is shared with other processes, so pipes and terminals are reopened.
 * If that fails, the shared one becomes non-blocking; Node restores it at exit. Files on disk never block.
 */
export function nonBlockingWriter(fd: number): NonBlockingWriter {
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
