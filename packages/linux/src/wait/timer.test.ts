import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Epoll } from './epoll.ts';
import { Timer } from './timer.ts';

describe('Timer', () => {
  it('calls its handler once after a delay', () => {
    using epoll = new Epoll();
    let calls = 0;
    using timer = new Timer(epoll, () => calls++);
    const begin = performance.now();
    timer.after(20);
    epoll.wait(5000);
    expect(calls).toBe(1);
    expect(performance.now() - begin).toBeGreaterThanOrEqual(19);
    epoll.wait(50);
    expect(calls).toBe(1);
  });

  it('calls its handler repeatedly at an interval', () => {
    using epoll = new Epoll();
    let calls = 0;
    using timer = new Timer(epoll, () => calls++);
    timer.every(5);
    const deadline = performance.now() + 5000;
    while (calls < 10 && performance.now() < deadline) epoll.wait(1000);
    expect(calls).toBe(10);
  });

  it('can be rearmed and cancelled from its handler', () => {
    using epoll = new Epoll();
    const calls: number[] = [];
    using timer: Timer = new Timer(epoll, () => {
      calls.push(calls.length);
      if (calls.length === 3) timer.cancel();
      else timer.after(1);
    });
    timer.after(1);
    while (calls.length < 3) expect(epoll.wait(5000)).toBe(1);
    epoll.wait(30);
    expect(calls).toEqual([0, 1, 2]);
  });

  it('does not call its handler after close, and closes its descriptor', () => {
    const before = readdirSync('/proc/self/fd').length;
    const epoll = new Epoll();
    let calls = 0;
    const timer = new Timer(epoll, () => calls++);
    timer.every(1);
    timer.close();
    timer.close();
    expect(epoll.wait(20)).toBe(0);
    epoll.close();
    expect(calls).toBe(0);
    expect(readdirSync('/proc/self/fd')).toHaveLength(before);
  });
});
