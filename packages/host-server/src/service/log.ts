import { escapeJson, printable } from '@ivshmem/linux/process';
import { pino } from 'pino';
import { eventText, type HostServerEvent } from '../server/events.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Where lines go, each with its end. */
export interface LogOutput {
  write(text: string): unknown;
  /** The line that stands for a number of lines that were dropped; an output that drops none ignores it. */
  dropped?: (lines: number) => string;
}

/** What happens to a process with host servers, for whoever looks after it. */
export interface ServerLog {
  /** An event of the server that is known by the name `link`. */
  event(link: string, event: HostServerEvent): void;
  /** Anything else, with what a program may want to know about it. */
  note(level: LogLevel, text: string, fields?: object): void;
}

/** Lines in each second; what is beyond is counted only, so that clients cannot fill a disk. */
const LINES_PER_SECOND = 200;

/** Whether an event is one too many, each time it is called; `report` gets the number of those, a second later. */
function eventLimit(report: (suppressed: number) => void): () => boolean {
  let second = 0;
  let lines = 0;
  let suppressed = 0;
  const reportSuppressed = () => {
    report(suppressed);
    suppressed = 0;
  };
  return () => {
    const now = Math.floor(performance.now() / 1000);
    if (now !== second) {
      second = now;
      lines = 0;
    }
    if (++lines <= LINES_PER_SECOND) return false;
    if (suppressed++ === 0) setTimeout(reportSuppressed, 1000).unref();
    return true;
  };
}

/** Plain text: one line for each event with `verbose`, else only where the server listens. */
export function plainLog(output: LogOutput, verbose: boolean): ServerLog {
  const isTooMuch = eventLimit((suppressed) => output.write(`${suppressed} lines were left out\n`));
  return {
    event(_link, event) {
      if (!verbose && event.type !== 'listening') return;
      if (!isTooMuch()) output.write(`${printable(eventText(event))}\n`);
    },
    note(level, text) {
      if (verbose && level !== 'debug') output.write(`${printable(text)}\n`);
    },
  };
}

export interface StructuredLogOptions {
  /** Lines for people instead of JSON. */
  readonly pretty: boolean;
  /** Details, too. */
  readonly verbose: boolean;
}

/**
 * A log by pino. As JSON, a line has `level` (debug, info, warn, error), `time` in ms since 1970 and `msg`; events have
 * `link`, `type` and their own fields, too.
 */
export function structuredLog(output: LogOutput, { pretty, verbose }: StructuredLogOptions): ServerLog {
  const lineOf = (json: string) => (pretty ? prettyLine(json) : `${escapeJson(json.trimEnd())}\n`);
  const logger = pino(
    {
      base: undefined,
      level: verbose ? 'debug' : 'info',
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => output.write(lineOf(line)) },
  );
  output.dropped = (lines) => {
    const msg = `${lines} lines were dropped, since nothing read them`;
    return lineOf(JSON.stringify({ level: 'warn', time: Date.now(), type: 'dropped', lines, msg }));
  };
  const isTooMuch = eventLimit((suppressed) => {
    logger.warn({ type: 'suppressed', suppressed }, `${suppressed} lines were left out`);
  });
  return {
    event(link, event) {
      if (isTooMuch()) return;
      const text = event.type === 'warning' ? event.text : eventText(event);
      logger[levelOf(event)]({ link, ...event }, text);
    },
    note(level, text, fields = {}) {
      logger[level](fields, text);
    },
  };
}

function levelOf(event: HostServerEvent): LogLevel {
  if (event.type === 'warning' || event.type === 'refused') return 'warn';
  return event.type === 'peer-gone' && event.cause !== 'disconnected' ? 'warn' : 'info';
}

/** `2026-01-31 12:00:00 warn  /run/x.sock: connection refused: …` */
function prettyLine(line: string): string {
  const { level, time, link, msg } = JSON.parse(line);
  const moment = new Date(time);
  const local = new Date(time - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
  const text = printable(`${link === undefined ? '' : `${link}: `}${msg}`);
  return `${local.replace('T', ' ')} ${level.padEnd(5)} ${text}\n`;
}
