import { escapeJson, printable } from '@ivshmem/linux/process';
import { pino } from 'pino';
import { eventText, type HostServerEvent } from '../server/events.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Output of the log and the help. */
export interface LogOutput {
  /** Writes complete lines, each with its newline. */
  write(text: string): unknown;
  /** Set by the log: returns the line to write in place of dropped lines. Ignored by an output that drops none. */
  dropped?: (lines: number) => string;
}

/** The log of a process with host servers. */
export interface ServerLog {
  /** Logs an event of the server with the name `link`. */
  event(link: string, event: HostServerEvent): void;
  /** Logs anything else; `fields` are for structured logs. */
  note(level: LogLevel, text: string, fields?: object): void;
}

/** Limit of event lines per second; more are only counted, so that clients cannot fill a disk. */
const LINES_PER_SECOND = 200;

/** Returns a function that counts an event and returns whether to suppress it. `report` gets their number 1 s later. */
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

/** A plain-text log: with `verbose` one line per event, otherwise only `listening`. */
export function plainLog(output: LogOutput, verbose: boolean): ServerLog {
  const isSuppressed = eventLimit((suppressed) => output.write(`${suppressed} lines suppressed\n`));
  return {
    event(_link, event) {
      if (!verbose && event.type !== 'listening') return;
      if (!isSuppressed()) output.write(`${printable(eventText(event))}\n`);
    },
    note(level, text) {
      if (verbose && level !== 'debug') output.write(`${printable(text)}\n`);
    },
  };
}

export interface StructuredLogOptions {
  /** Readable text instead of JSON. */
  readonly pretty: boolean;
  /** Log details (level debug) as well. */
  readonly verbose: boolean;
}

/**
 * A log through pino. A JSON line has `level` (debug, info, warn, error), `time` in ms since 1970 and `msg`; lines of events
 * also have `link`, `type` and the fields of the event.
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
    const msg = `${lines} lines dropped: output not read`;
    return lineOf(JSON.stringify({ level: 'warn', time: Date.now(), type: 'dropped', lines, msg }));
  };
  const isSuppressed = eventLimit((suppressed) => {
    logger.warn({ type: 'suppressed', suppressed }, `${suppressed} lines suppressed`);
  });
  return {
    event(link, event) {
      if (isSuppressed()) return;
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
