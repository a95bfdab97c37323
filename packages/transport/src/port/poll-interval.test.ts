import { describe, expect, it } from 'vitest';
import { PollInterval } from './poll-interval.ts';

describe('poll interval', () => {
  it('doubles with each poll that finds no work, up to the maximum', () => {
    const interval = new PollInterval(1, 6);
    const seen: number[] = [];
    for (let i = 0; i < 5; i++) {
      interval.looked();
      seen.push(interval.current);
    }
    expect(seen).toEqual([2, 4, 6, 6, 6]);
    expect(interval.looked()).toBe(false);
  });

  it('stays short while there is work', () => {
    const interval = new PollInterval(1, 6);
    for (let i = 0; i < 5; i++) {
      expect(interval.worked()).toBe(false);
      expect(interval.looked()).toBe(false);
    }
    expect(interval.current).toBe(1);
  });

  it('is short again as soon as there is work', () => {
    const interval = new PollInterval(1, 6);
    interval.looked();
    interval.looked();
    expect(interval.worked()).toBe(true);
    expect(interval.current).toBe(1);
  });
});
