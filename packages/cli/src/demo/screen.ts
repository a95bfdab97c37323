import { styleText } from 'node:util';

/** Where the demo writes: lines, a line that changes while something is under way, a table at the end. */
export interface Screen {
  heading(text: string): void;
  line(text: string): void;
  /** Shows how far something is, 0 … 1, on a terminal that can overwrite a line; elsewhere nothing. */
  progress(text: string, part: number): void;
  table(rows: readonly (readonly [string, string])[]): void;
}

/** Columns of a terminal that does not say how many it has. */
const DEFAULT_COLUMNS = 80;
const LONGEST_BAR = 24;
/** A bar of fewer characters shows nothing. */
const SHORTEST_BAR = 4;
const INDENT = '  ';

/** What `createScreen` needs of a stream. */
export interface Output {
  readonly isTTY?: boolean;
  /** Of a terminal; some say 0. Changes with the window. */
  readonly columns?: number;
  write(text: string): unknown;
}

/** `terminal`: the value of TERM. `dumb` terminals only print; bold text is off there, and with NO_COLOR. */
export function createScreen(
  out: Output,
  { TERM: terminal, NO_COLOR: noColour }: NodeJS.ProcessEnv = process.env,
): Screen {
  const overwrites = out.isTTY === true && terminal !== 'dumb';
  const isBold = overwrites && !noColour;
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
    heading: (text) => write(`\n${isBold ? styleText('bold', text, { validateStream: false }) : text}`),
    line: (text) => write(`${INDENT}${text}`),
    progress(text, part) {
      if (!overwrites) return;
      clear();
      out.write(progressLine(text, part, out.columns || DEFAULT_COLUMNS));
      transient = true;
    },
    table(rows) {
      const width = Math.max(...rows.map(([name]) => name.length));
      for (const [name, value] of rows) write(`${INDENT}${name.padEnd(width)}   ${value}`);
    },
  };
}

/**
 * A bar and a text in one line that fits on `columns`: a line that wraps can't be overwritten. The bar gives way to the
 * text. The last column stays free, since some terminals wrap there.
 */
export function progressLine(text: string, part: number, columns: number): string {
  const room = columns - 1;
  const bar = Math.min(LONGEST_BAR, room - INDENT.length - '[] '.length - text.length);
  if (bar < SHORTEST_BAR) return `${INDENT}${text}`.slice(0, room);
  const filled = Math.round(Math.min(Math.max(part, 0), 1) * bar);
  return `${INDENT}[${'#'.repeat(filled)}${'.'.repeat(bar - filled)}] ${text}`;
}

/** Writes nothing; for `--json`. */
export const noScreen: Screen = { heading() {}, line() {}, progress() {}, table() {} };
