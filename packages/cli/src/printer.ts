import { escapeJson, openOutput, printable } from '@ivshmem/linux/process';

/** Prints the events of a command that keeps running, without ever waiting for whatever reads its standard output. */
export interface Printer<Event> {
  print(event: Event): void;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A JSON object for each event with `json`, else the lines of text that `linesOf` gives. */
export function openPrinter<Event extends object>(
  json: boolean,
  linesOf: (event: Event) => readonly string[],
): Printer<Event> {
  const output = openOutput(1);
  if (json) output.dropped = (lines) => jsonLine({ event: 'dropped', time: Date.now(), lines });
  return {
    print(event) {
      if (json) output.write(jsonLine(event));
      else for (const line of linesOf(event)) output.write(`${printable(line)}\n`);
    },
    [Symbol.asyncDispose]: () => output.close(),
  };
}

/** Standard output of a command that ends by itself: it waits for its reader, and a reader that has gone is no error. */
export function standardOutput(): NodeJS.WriteStream {
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => {});
  return process.stdout;
}

/** A value as a line of JSON, with nothing in it that a terminal would act upon. */
export function jsonLine(value: object): string {
  return `${escapeJson(JSON.stringify(value))}\n`;
}
