import { fstatSync, write } from 'node:fs';
import { setNonBlocking } from '@ivshmem/linux';
import type { LogOutput } from './log.ts';

/** What may wait for a reader that does not read, in bytes; lines that do not fit are lost. */
const CAPACITY = 1 << 20;
/** How long to leave a reader alone that does not read, in ms. */
const RETRY = 50;
/** How long to wait for such a reader in the end, in ms. */
const PATIENCE = 1000;

export interface LogStream extends LogOutput {
  /** Fulfilled when everything is written, or cannot be. Nothing more is written after that. */
  close(): Promise<void>;
}

/**
 * Writes to a descriptor without ever waiting for its reader: whoever reads the log may be slow, stop, or go; the server
 * goes on. Pipes and sockets become non-blocking for that, until Node takes it back at its end.
 */
export function openLogStream(fd: number): LogStream {
  const status = fstatSync(fd);
  if (status.isFIFO() || status.isSocket()) setNonBlocking(fd);
  let waiting: Buffer[] = [];
  let length = 0;
  let isWriting = false;
  let isOpen = true;
  let onIdle = () => {};

  const giveUp = () => {
    waiting = [];
    length = 0;
  };
  const writeNext = () => {
    if (waiting.length === 0) {
      isWriting = false;
      onIdle();
      return;
    }
    isWriting = true;
    const bytes = waiting.length === 1 ? waiting[0]! : Buffer.concat(waiting);
    waiting = [bytes];
    write(fd, bytes, 0, bytes.length, null, (error, written) => {
      if (error?.code === 'EAGAIN') {
        setTimeout(writeNext, RETRY);
        return;
      }
      // Nobody is left to read.
      if (error !== null) giveUp();
      else if (waiting.length > 0) {
        length -= written;
        waiting[0] = bytes.subarray(written);
        if (written === bytes.length) waiting.shift();
      }
      writeNext();
    });
  };

  return {
    write(text) {
      const bytes = Buffer.from(text);
      if (!isOpen || length + bytes.length > CAPACITY) return;
      waiting.push(bytes);
      length += bytes.length;
      if (!isWriting) writeNext();
    },
    async close() {
      isOpen = false;
      if (isWriting) {
        const patience = setTimeout(giveUp, PATIENCE);
        await new Promise<void>((resolve) => {
          onIdle = resolve;
        });
        clearTimeout(patience);
      }
    },
  };
}
