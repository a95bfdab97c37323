import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Epoll } from '../wait/epoll.ts';
import { type LogReport, Reports } from './reports.ts';

interface Count {
  readonly type: 'count' | 'other';
  readonly value: number;
}

describe('Reports', () => {
  let epoll: Epoll;
  let time: number;
  let posted: (Count | LogReport)[];
  let reports: Reports<Count>;

  beforeEach(() => {
    epoll = new Epoll();
    time = 5;
    posted = [];
    reports = new Reports(
      epoll,
      (message) => posted.push(message),
      () => time,
    );
  });

  afterEach(() => {
    reports.close();
    epoll.close();
  });

  const count = (value: number): Count => ({ type: 'count', value });
  const texts = () => posted.map((message) => (message.type === 'log' ? message.text : message.value));

  it('posts the reports of an ordinary peer in order', () => {
    for (let i = 0; i < 10; i++) {
      reports.latest(count(i));
      reports.log(`line ${i}`);
      reports.latest({ type: 'other', value: -i });
    }
    expect(texts()).toEqual(Array.from({ length: 10 }, (_, i) => [i, `line ${i}`, -i]).flat());
  });

  it('posts a bounded number of reports of a frantic peer, and the latest state within a second', () => {
    for (let i = 0; i < 100_000; i++) reports.latest(count(i));
    reports.latest({ type: 'other', value: 7 });
    expect(texts()).toEqual([...Array.from({ length: 32 }, (_, i) => i), 7]);
    time += 1000;
    reports.flush();
    expect(texts().slice(33)).toEqual([99_999]);
    time += 1000;
    reports.flush();
    expect(posted).toHaveLength(34);
  });

  it('posts the last of many lines with the number of those left out', () => {
    for (let i = 0; i < 1000; i++) reports.log(`line ${i}`);
    expect(texts()).toEqual(Array.from({ length: 32 }, (_, i) => `line ${i}`));
    time += 49;
    reports.flush();
    reports.log('too early');
    expect(posted).toHaveLength(32);
    time += 1;
    reports.flush();
    expect(texts().slice(32)).toEqual(['too early (968 lines before this one were left out)']);
    reports.log('alone');
    time += 1000;
    reports.flush();
    expect(texts().slice(33)).toEqual(['alone']);
  });

  it('posts every state of a peer that restarts every second', () => {
    for (let i = 0; i < 1000; i++) {
      reports.latest(count(i));
      if (i % 5 === 4) time += 1000;
    }
    expect(posted).toHaveLength(1000);
  });

  it('posts 20 reports per second of an endless sequence', () => {
    for (let i = 0; i < 100_000; i++) {
      reports.latest(count(i));
      time += 1;
      if (i % 1000 === 0) reports.flush();
    }
    expect(posted.length).toBeGreaterThan(100);
    expect(posted.length).toBeLessThan(32 + 20 * 100);
  });

  it('allows one more burst after a quiet period', () => {
    for (let i = 0; i < 32; i++) reports.log('first');
    time += 3_600_000;
    for (let i = 0; i < 100; i++) reports.log('second');
    expect(posted).toHaveLength(64);
  });

  it('posts by its own timer, and on close', () => {
    for (let i = 0; i < 40; i++) reports.latest(count(i));
    time += 1000;
    while (posted.length === 32) epoll.wait(10_000);
    expect(texts().at(-1)).toBe(39);
    for (let i = 0; i < 3; i++) reports.log(`line ${i}`);
    reports.latest(count(40));
    reports.close();
    expect(texts().slice(33)).toEqual(['line 0', 'line 1', 'line 2', 40]);
  });
});
