import { once } from 'node:events';
import type { ControlServer, PartReport } from '@ivshmem/monitor';
import { EXIT_OK } from './exit.ts';
import type { RunningOptions } from './options/running.ts';
import { openPrinter } from './output/printer.ts';
import { ServiceStatus } from './output/service-status.ts';
import { openProcessMonitor } from './process-monitor.ts';
import { openStopSignal } from './stop-signal.ts';

/** A part of a command that runs until it is closed or fails, such as a link. */
export interface Running {
  /** Resolves when it has ended; to an Error if it failed. */
  readonly closed: Promise<Error | null>;
  close(): Promise<void>;
}

/** How the events of a command read. */
export interface EventText<Event> {
  /** The part of the command that the event is about: its state is one of those that `systemctl status` shows. */
  partOf(event: Event): string;
  /** The event as lines of text. */
  linesOf(event: Event): readonly string[];
}

/** A command that is starting its parts. */
export interface Starting<Event> {
  /** Aborted when the command is to stop. */
  readonly stop: AbortSignal;
  print(event: Event): void;
  /** Hands over a part that has started, and how to read its counters and its report for `ivshmem status`. */
  add(part: Running, readStats?: () => Event, report?: () => PartReport): void;
  /** For requests other than `status`; undefined if this process has no control socket. */
  readonly control: ControlServer | undefined;
}

/**
 * Runs a command that ends on request: by a signal, or by the end of standard input with `--until-eof`. `start`
 * starts its parts. `command` names the control socket. The command also ends as soon as one of them does. All of them are closed then, the last first, also
 * if `start` throws. Prints the counters at the interval of `--stats` and at the end. Returns the exit code; throws what
 * `start` throws and the error of a part that failed.
 */
export async function runUntilStopped<Event extends { readonly event: string }>(
  command: string,
  options: RunningOptions,
  { partOf, linesOf }: EventText<Event>,
  start: (starting: Starting<Event>) => Promise<void>,
): Promise<number> {
  const { json = false, untilEof = false, stats } = options;
  using stopping = openStopSignal(untilEof);
  const stop = stopping.signal;
  const service = new ServiceStatus();
  await using printer = openPrinter(json);
  const print = (event: Event) => {
    const lines = linesOf(event);
    service.report(partOf(event), event.event, lines);
    printer.print(event, lines);
  };
  const parts: Running[] = [];
  const counters: (() => Event)[] = [];
  const reports: (() => PartReport)[] = [];
  const add = (part: Running, readStats?: () => Event, report?: () => PartReport) => {
    parts.push(part);
    if (readStats !== undefined) counters.push(readStats);
    if (report !== undefined) reports.push(report);
  };
  let ready = false;
  const current = () => ({ ready, parts: reports.map((report) => report()) });
  const printStats = () => {
    for (const readStats of counters) print(readStats());
  };
  await using monitor = await openProcessMonitor(command, options, current);
  try {
    await start({ stop, print, add, control: monitor.control });
  } catch (error) {
    await closeAll(parts);
    if (stop.aborted) return EXIT_OK;
    throw error;
  }
  const timer = stats ? setInterval(printStats, stats * 1000) : undefined;
  ready = true;
  service.ready();
  try {
    await Promise.race([...parts.map(({ closed }) => closed), stop.aborted || once(stop, 'abort')]);
  } finally {
    clearInterval(timer);
    service.stopping();
    await closeAll(parts);
  }
  for (const { closed } of parts) {
    const failure = await closed;
    if (failure !== null) throw failure;
  }
  printStats();
  return EXIT_OK;
}

/** Closes all, the last first. */
async function closeAll(parts: readonly Running[]): Promise<void> {
  for (const part of parts.toReversed()) await part.close();
}
