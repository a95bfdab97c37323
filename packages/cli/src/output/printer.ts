import { openOutput, printable } from '@ivshmem/linux/process';
import { jsonLine } from './json-line.ts';

/** Prints the events of a command that keeps running. Never waits for the reader of standard output. */
export interface Printer extends AsyncDisposable {
  /** `lines`: the event as text. */
  print(event: object, lines: readonly string[]): void;
}

/** Prints each event as a JSON object with `json`, else its lines of text. */
export function openPrinter(json: boolean): Printer {
  const output = openOutput(1);
  if (json) output.dropped = (lines) => jsonLine({ event: 'dropped', time: Date.now(), lines });
  return {
    print(event, lines) {
      if (json) output.write(jsonLine(event));
      else for (const line of lines) output.write(`${printable(line)}\n`);
    },
    [Symbol.asyncDispose]: () => output.close(),
  };
}
