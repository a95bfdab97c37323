import { printable } from '@ivshmem/linux/process';
import { dumpLines } from '../bytes.ts';
import type { CheckInfo, Result } from '../runner.ts';
import { type Report, summarise } from './report.ts';

const line = (text: string) => `${printable(text)}\n`;

/** For people. */
export function peopleReport(): Report {
  return {
    begin: (checks, seed) => line(`${checks.length} checks, seed ${seed}`),
    result: (result) => line(`${verdict(result)}  ${result.check.id}${remark(result)}`) + details(result),
    end(results) {
      const { passed, failedMust, failedShould, skipped } = summarise(results);
      return line(
        `${passed} passed, ${failedMust} failed (MUST), ${failedShould} failed (SHOULD), ${skipped} skipped`,
      );
    },
  };
}

function verdict({ outcome, check }: Result): string {
  if (outcome === 'passed') return 'ok    ';
  if (outcome === 'skipped') return 'skip  ';
  return check.level === 'MUST' ? 'FAILED' : 'should';
}

function remark({ check, reason }: Result): string {
  return `${check.hostile ? ' (hostile)' : ''}${reason === undefined ? '' : `: ${reason}`}`;
}

function details({ check, failure, sent }: Result): string {
  if (failure === undefined) return '';
  return [
    `${check.level}: ${check.sentence} (${check.source})`,
    ...(sent ?? []).map((entry, index) => `${index === 0 ? 'sent:     ' : '          '}${entry}`),
    `expected: ${failure.expected}`,
    `came:     ${failure.came}`,
    ...failure.dumps.flatMap((dump) => [`${dump.what}:`, ...dumpLines(dump).map((each) => `  ${each}`)]),
  ]
    .map((text) => line(`        ${text}`))
    .join('');
}

/** The list of checks, one per line. */
export function listChecks(checks: readonly CheckInfo[]): string {
  const width = Math.max(...checks.map(({ id }) => id.length));
  return checks
    .map(({ id, level, hostile, sentence, source }) =>
      line(`${id.padEnd(width)}  ${level.padEnd(6)}  ${hostile ? 'hostile: ' : ''}${sentence} (${source})`),
    )
    .join('');
}
