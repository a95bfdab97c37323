import { escapeJson } from '@ivshmem/linux/process';
import { dumpLines } from '../bytes.ts';
import { type Report, summarise } from './report.ts';

const line = (value: object) => `${escapeJson(JSON.stringify(value))}\n`;

/** One JSON object per line: `begin`, a `result` for each check, `end`. */
export function jsonReport(): Report {
  return {
    begin: (checks, seed) => line({ event: 'begin', checks: checks.length, seed }),
    result({ check, outcome, ms, reason, failure, sent }) {
      const { id, level, hostile = false, sentence, source } = check;
      return line({
        event: 'result',
        id,
        outcome,
        level,
        hostile,
        sentence,
        source,
        ms: Math.round(ms),
        reason,
        sent,
        expected: failure?.expected,
        came: failure?.came,
        bytes: failure?.dumps.map((dump) => ({ what: dump.what, lines: dumpLines(dump) })),
      });
    },
    end: (results) => line({ event: 'end', ...summarise(results) }),
  };
}
