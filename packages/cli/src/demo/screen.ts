import { styleText } from 'node:util';

/** Where the demo writes: lines, a line that changes while something is under way, a table at the end. */
export interface Screen {
  heading(text: string): void;
  line(text: string): void;
  /** Shows how far something is, 0 … 1, on a terminal; elsewhere nothing. */
  progress(text: string, part: number): void;
  table(rows: readonly (readonly [string, string])[]): void;
}

const BAR = 24;

export function createScreen(out: NodeJS.WriteStream): Screen {
  let transient = false;
  const clear = () => {
    if (transient) out.write('\r\x1b[K');
    transient = false;
  };
  const write = (text: string) => {
    clear();
    out.write(`${text}\n`);
  };
  return {
    heading: (text) => write(`\n${out.isTTY ? styleText('bold', text) : text}`),
    line: (text) => write(`  ${text}`),
    progress(text, part) {
      if (!out.isTTY) return;
      clear();
      const filled = Math.round(Math.min(part, 1) * BAR);
      out.write(`  [${'#'.repeat(filled)}${'.'.repeat(BAR - filled)}] ${text}`);
      transient = true;
    },
    table(rows) {
      const width = Math.max(...rows.map(([name]) => name.length));
      for (const [name, value] of rows) write(`  ${name.padEnd(width)}   ${value}`);
    },
  };
}

/** Writes nothing; for `--json`. */
export const noScreen: Screen = { heading() {}, line() {}, progress() {}, table() {} };
