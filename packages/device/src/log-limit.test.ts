import { expect, it } from 'vitest';
import { LogLimit } from './log-limit.ts';

it('withholds lines that come too fast, and says how many', () => {
  const lines: string[] = [];
  let now = 0;
  const log = new LogLimit(
    (text) => lines.push(text),
    () => now,
  );
  for (let i = 0; i < 1000; i++) log.write(`line ${i}`);
  expect(lines).toEqual(Array.from({ length: 32 }, (_, i) => `line ${i}`));
  now = 9_999;
  log.write('too early');
  now = 10_000;
  log.write('in time');
  expect(lines.slice(32)).toEqual(['969 lines were withheld', 'in time']);
});
