import { Epoll } from '@ivshmem/linux/wait';
import { expect, it } from 'vitest';
import type { WorkerMessage } from './link-messages.ts';
import { LinkReports } from './reports.ts';

it('logs the first violation, and then one line for many', () => {
  using epoll = new Epoll();
  const posted: WorkerMessage[] = [];
  const reports = new LinkReports(epoll, (message) => posted.push(message));
  for (let i = 0; i < 1000; i++) reports.violation('it lies', 'the link is reset', 0);
  expect(posted).toEqual([
    { type: 'log', text: 'the peer violates the protocol: it lies; the link is reset' },
  ]);
  reports.violation('it lies', 'the link is reset', 10_000);
  expect(posted.slice(1)).toEqual([
    {
      type: 'log',
      text: 'the peer violates the protocol: it lies; the link is reset (and did 999 times since the last line)',
    },
  ]);
  reports.close();
});
