import { describe, expect, it } from 'vitest';
import { dump } from '../bytes.ts';
import { Failure } from '../check.ts';
import type { Result } from '../runner.ts';
import { reportFormats } from './formats.ts';
import { listChecks } from './people.ts';

const check = (id: string, level: 'MUST' | 'SHOULD' = 'MUST', hostile = false) => ({
  id,
  sentence: 'A frame < 14 bytes is "dropped".',
  source: 'docs/protocol-0x0001.md, section 6',
  level,
  hostile,
});
const failure = new Failure('used.idx 1', 'used.idx 0\u001b[31m', [
  dump(
    'descriptor 0',
    Uint8Array.from({ length: 18 }, (_, i) => i),
    0,
  ),
]);
const results: Result[] = [
  { check: check('peer.a.passes'), outcome: 'passed', ms: 1 },
  {
    check: check('peer.a.fails', 'MUST', true),
    outcome: 'failed',
    ms: 20,
    failure,
    sent: ['state 1', 'a frame'],
  },
  { check: check('peer.b.should', 'SHOULD'), outcome: 'failed', ms: 3, failure, sent: [] },
  { check: check('peer.b.skipped'), outcome: 'skipped', ms: 0, reason: 'needs two vectors' },
];

function written(format: string): string {
  const report = reportFormats[format]!();
  const checks = results.map((result) => result.check);
  return report.begin(checks, 7) + results.map(report.result).join('') + report.end(results);
}

describe('a report', () => {
  it('for people says what was sent, expected, and came, with the bytes', () => {
    expect(written('people')).toBe(`4 checks, seed 7
ok      peer.a.passes
FAILED  peer.a.fails (hostile)
        MUST: A frame < 14 bytes is "dropped". (docs/protocol-0x0001.md, section 6)
        sent:     state 1
                  a frame
        expected: used.idx 1
        came:     used.idx 0\uFFFD[31m
        descriptor 0:
          0x0000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f
          0x0010: 10 11
should  peer.b.should
        SHOULD: A frame < 14 bytes is "dropped". (docs/protocol-0x0001.md, section 6)
        expected: used.idx 1
        came:     used.idx 0\uFFFD[31m
        descriptor 0:
          0x0000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f
          0x0010: 10 11
skip    peer.b.skipped: needs two vectors
1 passed, 1 failed (MUST), 1 failed (SHOULD), 1 skipped
`);
  });

  it('in TAP has a plan, and a failed SHOULD is a TODO', () => {
    const lines = written('tap').split('\n');
    expect(lines.slice(0, 3)).toEqual(['TAP version 14', '1..4', '# seed 7']);
    expect(lines.filter((line) => /^(not )?ok/.test(line))).toEqual([
      'ok 1 - peer.a.passes',
      'not ok 2 - peer.a.fails',
      'not ok 3 - peer.b.should # TODO SHOULD',
      'ok 4 - peer.b.skipped # SKIP needs two vectors',
    ]);
    expect(lines).toContain('    - "descriptor 0: 0x0010: 10 11"');
  });

  it('in JUnit is well-formed, and a failed SHOULD is skipped', () => {
    const text = written('junit');
    expect(text).toContain('tests="4" failures="1" skipped="2" time="0.024"');
    expect(text).toContain('<testcase classname="peer.a" name="fails" time="0.020"><failure message="MUST: ');
    expect(text).toContain('A frame &lt; 14 bytes is &quot;dropped&quot;.');
    const tags = [...text.matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g)].filter(
      ([, , , selfClosing]) => selfClosing === '',
    );
    const depth = tags.reduce((sum, [, closing]) => sum + (closing === '' ? 1 : -1), 0);
    expect(depth).toBe(0);
  });

  it('in JSON has one object per line', () => {
    const lines = written('json').trimEnd().split('\n');
    const objects = lines.map((line) => JSON.parse(line));
    expect(objects.map(({ event, outcome }) => outcome ?? event)).toEqual([
      'begin',
      'passed',
      'failed',
      'failed',
      'skipped',
      'end',
    ]);
    expect(objects[2]).toMatchObject({ id: 'peer.a.fails', hostile: true, sent: ['state 1', 'a frame'] });
    expect(objects.at(-1)).toEqual({ event: 'end', passed: 1, failedMust: 1, failedShould: 1, skipped: 1 });
  });
});

it('the list of checks has a line for each', () => {
  expect(listChecks([check('peer.a.fails', 'SHOULD', true)])).toBe(
    'peer.a.fails  SHOULD  hostile: A frame < 14 bytes is "dropped". (docs/protocol-0x0001.md, section 6)\n',
  );
});
