import { writeSync } from 'node:fs';
import type { ReadStream, WriteStream } from 'node:tty';

const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const STDOUT = 1;
const CTRL_C = '\x03';

/** A terminal that shows full pages and takes single keys. Disposing it restores the terminal; so does the end of the process. */
export interface Terminal extends Disposable {
  /** Shows these lines in place of the previous ones, cut to the size of the terminal. */
  show(lines: readonly string[]): void;
}

/** `onKey` is called with each key, and `onResize` when the size changes. Ctrl-C calls `stop`. */
export function openTerminal(
  output: WriteStream,
  input: ReadStream | null,
  { stop, onKey, onResize }: { stop: () => void; onKey: (key: string) => void; onResize: () => void },
): Terminal {
  let isOpen = true;
  const restore = () => {
    if (!isOpen) return;
    isOpen = false;
    input?.setRawMode(false);
    try {
      writeSync(STDOUT, LEAVE);
    } catch {
      // The terminal has been closed, or does not accept output now.
      output.write(LEAVE);
    }
  };
  const onData = (text: string) => {
    for (const key of text)
      if (key === CTRL_C) stop();
      else onKey(key);
  };
  output.write(ENTER);
  output.on('resize', onResize);
  process.once('exit', restore);
  input?.setRawMode(true).setEncoding('utf8').on('data', onData).resume();
  return {
    show(lines) {
      // A terminal that was stopped by Ctrl-S: what it has not shown yet is out of date.
      if (!isOpen || output.writableNeedDrain) return;
      // A pseudo-terminal may have no size.
      const columns = output.columns || 80;
      const rows = output.rows || 24;
      const page = lines.slice(0, rows).map((line) => `${line.slice(0, columns)}\x1b[K`);
      output.write(`\x1b[H${page.join('\r\n')}\x1b[J`);
    },
    [Symbol.dispose]() {
      restore();
      process.off('exit', restore);
      output.off('resize', onResize);
      input?.off('data', onData).pause();
    },
  };
}
