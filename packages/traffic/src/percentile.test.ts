import { expect, it } from 'vitest';
import { percentile } from './percentile.ts';

it('percentile takes the nearest rank', () => {
  const values = [15, 20, 35, 40, 50].reverse();
  expect([0, 5, 30, 40, 50, 100].map((p) => percentile(values, p))).toEqual([15, 15, 20, 20, 35, 50]);
  expect(percentile(Float64Array.of(7), 99)).toBe(7);
  // Sorted as numbers, not as text, and without changing the order of `values`.
  expect(percentile([9, 10, 100], 50)).toBe(10);
  expect(values).toEqual([50, 40, 35, 20, 15]);
  expect(percentile([], 50)).toBeNaN();
  expect(() => percentile([1], 101)).toThrow(RangeError);
  expect(() => percentile([1], Number.NaN)).toThrow(RangeError);
});
