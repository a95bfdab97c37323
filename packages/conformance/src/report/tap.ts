import { printable } from '@ivshmem/linux/process';
import { dumpLines } from '../bytes.ts';
import type { Result } from '../runner.ts';
import type { Report } from './report.ts';

const scalar = (text: string) => JSON.stringify(printable(text));

/** TAP 14. A failed SHOULD is a TODO, which does not fail a run. */
export function tapReport(): Report {
  let number = 0;
  return {
    begin: (checks, seed) => `TAP version 14\n1..${checks.length}\n# seed ${seed}\n`,
    result(result) {
      number++;
      const { check, outcome, reason } = result;
      const name = `${number} - ${check.id}`;
      if (outcome === 'passed') return `ok ${name}\n`;
      if (outcome === 'skipped') return `ok ${name} # SKIP ${printable(reason ?? '')}\n`;
      return `not ok ${name}${check.level === 'SHOULD' ? ' # TODO SHOULD' : ''}\n${diagnostic(result)}`;
    },
    end: () => '',
  };
}

function diagnostic({ check, failure, sent }: Result): string {
  const list = (name: string, entries: readonly string[]) =>
    entries.length === 0 ? [] : [`${name}:`, ...entries.map((entry) => `  - ${scalar(entry)}`)];
  const lines = [
    '---',
    `message: ${scalar(check.sentence)}`,
    `severity: ${check.level}`,
    `source: ${scalar(check.source)}`,
    `expected: ${scalar(failure!.expected)}`,
    `came: ${scalar(failure!.came)}`,
    ...list('sent', sent ?? []),
    ...list(
      'bytes',
      failure!.dumps.flatMap((dump) => dumpLines(dump).map((each) => `${dump.what}: ${each}`)),
    ),
    '...',
  ];
  return lines.map((each) => `  ${each}\n`).join('');
}
