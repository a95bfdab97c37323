import { describe, expect, it } from 'vitest';
import { Epoll } from './epoll.ts';
import { Timer } from './timer.ts';

/** Far longer than any timer here runs, in ms. */
const LONG = 10_000;

describe('Timer', () => {
  it('goes off every so often until it is cancelled', () => {
    using epoll = new Epoll();
    let times = 0;
    const timer = new Timer(epoll, () => times++);
    timer.every(0.5);
    while (times < 5) expect(epoll.wait(LONG)).toBe(1);
    timer.cancel();
    expect(epoll.wait(5)).toBe(0);
    expect(times).toBe(5);
    timer.close();
  });

  it('goes off once after a delay, and again when it is set again', () => {
    using epoll = new Epoll();
    let times = 0;
    const timer = new Timer(epoll, () => times++);
    const start = performance.now();
    timer.after(5);
    epoll.wait(LONG);
    expect(performance.now() - start).toBeGreaterThanOrEqual(5);
    expect(times).toBe(1);
    expect(epoll.wait(5)).toBe(0);
    timer.after(1);
    epoll.wait(LONG);
    expect(times).toBe(2);
    timer.close();
  });

  it('takes the last interval that was set', () => {
    using epoll = new Epoll();
    let times = 0;
    const timer = new Timer(epoll, () => times++);
    timer.every(LONG);
    timer.every(1);
    epoll.wait(LONG);
    epoll.wait(LONG);
    expect(times).toBe(2);
    timer.close();
  });
});
