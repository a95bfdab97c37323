import { fstatSync } from 'node:fs';
import { setNonBlocking } from '@ivshmem/linux';
import { destination } from 'pino';
import type { LogOutput } from './log.ts';

/** What may wait for a reader that does not read, in bytes; what does not fit is lost. */
const BUFFER = 1 << 20;
/** How long to wait for such a reader in the end, in ms. */
const PATIENCE = 1000;

export interface LogStream extends LogOutput {
  /** Fulfilled when everything is written, or cannot be. */
  close(): Promise<void>;
}

/**
 * Writes to a descriptor without ever waiting for its reader: whoever reads the log may be slow, stop, or go; the server
 * goes on. Pipes and sockets become non-blocking for that, until Node takes it back at its end. {@link LogStream.close}
 * closes the descriptor, too, unless it is a standard stream.
 */
export function openLogStream(fd: number): LogStream {
  const status = fstatSync(fd);
  if (status.isFIFO() || status.isSocket()) setNonBlocking(fd);
  let patient = true;
  const stream = destination({ dest: fd, sync: false, maxLength: BUFFER, retryEAGAIN: () => patient });
  stream.on('error', () => {});
  return {
    write: (text) => stream.write(text),
    close() {
      return new Promise((resolve) => {
        const timer = setTimeout(() => {
          patient = false;
        }, PATIENCE);
        // After the last write, whether it succeeded or not: a stream destroyed while it writes never rests again.
        const finish = () => {
          clearTimeout(timer);
          stream.destroy();
          resolve();
        };
        stream.once('close', finish);
        stream.once('error', finish);
        stream.end();
      });
    },
  };
}
