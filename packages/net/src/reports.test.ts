import { State } from '@ivshmem/transport';
import { describe, expect, it } from 'vitest';
import type { WorkerMessage } from './link-messages.ts';
import { Reports } from './reports.ts';

function recorded() {
  const told: WorkerMessage[] = [];
  let time = 0;
  const reports = new Reports(
    (message) => told.push(message),
    () => time,
  );
  return {
    told,
    reports,
    advance(ms: number) {
      time += ms;
    },
  };
}

const status = (peer: number) => ({ local: State.INIT, peer, carrier: false, offloads: [] });

describe('Reports', () => {
  it('tells every state of an ordinary peer', () => {
    const { told, reports } = recorded();
    for (let i = 0; i < 10; i++) reports.state(status(i));
    reports.tick();
    expect(told.map((message) => message.type === 'state' && message.status.peer)).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    ]);
  });

  it('tells a bounded number of a frantic one, and the latest in the end', () => {
    const { told, reports } = recorded();
    for (let i = 0; i < 100_000; i++) reports.state(status(i));
    expect(told.length).toBeLessThan(100);
    reports.tick();
    expect(told.at(-1)).toEqual({ type: 'state', status: status(99_999) });
    const before = told.length;
    reports.tick();
    expect(told).toHaveLength(before);
  });

  it('logs the first violation, and then one line for many', () => {
    const { told, reports, advance } = recorded();
    for (let i = 0; i < 1000; i++) reports.violation('it lies', 'the link is reset');
    expect(told).toEqual([
      { type: 'log', text: 'the peer violates the protocol: it lies; the link is reset' },
    ]);
    advance(10_000);
    reports.violation('it lies', 'the link is reset');
    expect(told.at(-1)).toEqual({
      type: 'log',
      text: 'the peer violates the protocol: it lies; the link is reset (and did 999 times since the last line)',
    });
    expect(told).toHaveLength(2);
  });
});
