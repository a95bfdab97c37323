import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { groupId, userId } from './accounts.ts';

const entries = (file: string) =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(':'))
    .map(([name, , number]) => [name!, Number(number)] as const);

describe('users and groups', () => {
  it('are found by name', () => {
    for (const [name, number] of entries('/etc/passwd')) expect([name, userId(name)]).toEqual([name, number]);
    for (const [name, number] of entries('/etc/group')) expect([name, groupId(name)]).toEqual([name, number]);
  });

  it('may be numbers, assigned or not', () => {
    expect([userId('0'), groupId('54321'), userId('4294967294')]).toEqual([0, 54321, 4294967294]);
  });

  it.each(['no-such-name', '', '-1', '4294967295', 'a\0b', '1.5'])('%j is rejected', (text) => {
    expect(() => userId(text)).toThrow(RangeError);
    expect(() => groupId(text)).toThrow(/^group /);
  });
});
