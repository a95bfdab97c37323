import { describe, expect, it } from 'vitest';
import { BusyPoll } from './busy-poll.ts';

/** A clock in ms that moves only when the test sets it. */
function clock() {
  let time = 1;
  return {
    now: () => time,
    advance(µs: number) {
      time += µs / 1000;
    },
  };
}

/** Lets `waits` (µs) pass between pieces of work; returns whether it would poll again right after the last one. */
function after(limit: number, waits: readonly number[]): boolean {
  const { now, advance } = clock();
  const busyPoll = new BusyPoll(limit, now);
  for (const wait of waits) {
    busyPoll.lookAgain();
    advance(wait);
    busyPoll.worked();
  }
  return busyPoll.lookAgain();
}

const times = (count: number, wait: number) => Array.from({ length: count }, () => wait);

describe('BusyPoll', () => {
  it('does not begin before waits have been short', () => {
    expect(after(50, [])).toBe(false);
    expect(after(50, times(20, 10))).toBe(true);
  });

  it('stops if waits are long', () => {
    expect(after(50, times(20, 150))).toBe(true);
    expect(after(50, times(20, 250))).toBe(false);
    expect(after(50, [...times(20, 10), ...times(10, 1000)])).toBe(false);
  });

  it('continues after a single long wait among short ones', () => {
    expect(after(50, [...times(20, 10), 1_000_000, ...times(3, 10)])).toBe(true);
  });

  it('ends when the limit has passed, and restarts after work', () => {
    const { now, advance } = clock();
    const busyPoll = new BusyPoll(50, now);
    for (let i = 0; i < 20; i++) {
      busyPoll.lookAgain();
      busyPoll.worked();
    }
    expect(busyPoll.lookAgain()).toBe(true);
    advance(49);
    expect(busyPoll.lookAgain()).toBe(true);
    advance(2);
    expect(busyPoll.lookAgain()).toBe(false);
    busyPoll.worked();
    expect(busyPoll.lookAgain()).toBe(true);
  });

  it('never polls again with a limit of 0', () => {
    expect(after(0, times(20, 0))).toBe(false);
  });
});
