import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { nonBlockingWriter } from '@ivshmem/linux/process';

/** Interval for retrying to write, in ms. */
const RETRY = 10;
/** How long a stopped command waits for the reader of its output, in ms. */
const PATIENCE = 1000;

/** A file, a FIFO or standard output that is written without blocking, so that the command can always be stopped. */
export interface ByteOutput extends Disposable {
  /** Writes all of the bytes. Returns false if the reader has gone, or does not read after `stop`. Throws Error of `node:fs`. */
  write(bytes: Uint8Array, stop: AbortSignal): Promise<boolean>;
}

/** Opens `path`, or standard output for `-`. A FIFO without a reader is waited for. Throws Error of `node:fs`. */
export async function openByteOutput(path: string, stop: AbortSignal): Promise<ByteOutput> {
  const fd = path === '-' ? 1 : await openFile(path, stop);
  const { write, closeOwn } = nonBlockingWriter(fd);
  return {
    async write(bytes, signal) {
      let rest = bytes;
      let patience = PATIENCE;
      while (rest.length > 0) {
        try {
          rest = rest.subarray(write(rest));
        } catch (error) {
          const { code } = error as NodeJS.ErrnoException;
          if (code === 'EPIPE' || code === 'ECONNRESET') return false;
          if (code !== 'EAGAIN') throw error;
          if (signal.aborted) patience -= RETRY;
          if (patience <= 0) return false;
          await delay(RETRY);
        }
      }
      return true;
    },
    [Symbol.dispose]() {
      closeOwn();
      if (fd !== 1) closeSync(fd);
    },
  };
}

async function openFile(path: string, stop: AbortSignal): Promise<number> {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK } = constants;
  for (;;) {
    try {
      return openSync(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, 0o666);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
    }
    stop.throwIfAborted();
    await Promise.race([delay(RETRY), once(stop, 'abort')]);
  }
}
