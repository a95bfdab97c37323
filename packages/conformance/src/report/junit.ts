import { printable } from '@ivshmem/linux/process';
import { dumpLines } from '../bytes.ts';
import type { Result } from '../runner.ts';
import { type Report, summarise } from './report.ts';

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escaped = (text: string) => printable(text).replace(/[&<>"]/g, (character) => ENTITIES[character]!);

/** JUnit XML. A failed SHOULD counts as skipped, which does not fail a run. */
export function junitReport(): Report {
  return {
    begin: () => '',
    result: () => '',
    end(results) {
      const { failedMust, failedShould, skipped } = summarise(results);
      const seconds = results.reduce((sum, { ms }) => sum + ms, 0) / 1000;
      const counts = `tests="${results.length}" failures="${failedMust}" skipped="${skipped + failedShould}" time="${seconds.toFixed(3)}"`;
      return [
        '<?xml version="1.0" encoding="UTF-8"?>',
        `<testsuites><testsuite name="ivshmem check" ${counts}>`,
        ...results.map(testCase),
        '</testsuite></testsuites>',
        '',
      ].join('\n');
    },
  };
}

function testCase(result: Result): string {
  const { check, outcome, ms, reason, failure, sent } = result;
  const dot = check.id.lastIndexOf('.');
  const begin = `<testcase classname="${check.id.slice(0, dot)}" name="${check.id.slice(dot + 1)}" time="${(ms / 1000).toFixed(3)}"`;
  if (outcome === 'passed') return `${begin}/>`;
  if (failure === undefined) return `${begin}><skipped message="${escaped(reason ?? '')}"/></testcase>`;
  const message = escaped(`${check.level}: ${failure.message}`);
  if (check.level === 'SHOULD') return `${begin}><skipped message="${message}"/></testcase>`;
  const text = [
    `${check.sentence} (${check.source})`,
    ...(sent ?? []).map((entry) => `sent: ${entry}`),
    ...failure.dumps.flatMap((dump) => dumpLines(dump).map((each) => `${dump.what}: ${each}`)),
  ];
  return `${begin}><failure message="${message}">${text.map(escaped).join('\n')}</failure></testcase>`;
}
