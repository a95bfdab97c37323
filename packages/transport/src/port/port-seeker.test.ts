import { Epoll } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Port } from './port.ts';
import { PortSeeker } from './port-seeker.ts';

let poller: Epoll;
let seeker: PortSeeker<Port>;
let lines: string[];
let failure: Error | undefined;
let results: (Port | Error)[];
let used: number;
let now: number;
const port = {} as Port;

beforeEach(() => {
  poller = new Epoll();
  lines = [];
  results = [];
  failure = undefined;
  used = 0;
  now = 0;
});

afterEach(() => {
  seeker.close();
  expect(poller.size).toBe(0);
  poller.close();
});

function make(options: { wait?: boolean; use?: () => void } = {}): void {
  const { wait = false, use = () => {} } = options;
  seeker = new PortSeeker<Port>(
    {
      poller,
      open: (opened) => {
        opened(results.shift() ?? port);
        return { cancel() {} };
      },
      use: () => {
        used++;
        use();
      },
      failed: (error) => {
        failure = error;
      },
      log: (text) => lines.push(text),
      wait,
    },
    () => now,
  );
}

/** Until the search is over. */
function search(): void {
  const before = used;
  seeker.seek();
  while (used === before && failure === undefined) poller.wait(5000);
}

describe('a search for a port', () => {
  it('fails immediately if the first one cannot be opened, unless it is to wait for it', () => {
    make();
    results = [new Error('no socket')];
    search();
    expect([failure?.message, used, lines]).toEqual(['no socket', 0, []]);
    seeker.close();
    failure = undefined;
    make({ wait: true });
    results = [new Error('no socket'), new Error('no socket')];
    search();
    expect(failure).toBeUndefined();
    expect(lines).toEqual(['waiting for the host server: no socket; retrying', 'connected']);
  });

  it('fails immediately if the first one is unusable', () => {
    make({
      wait: true,
      use: () => {
        throw new Error('wrong protocol');
      },
    });
    search();
    expect(failure?.message).toBe('wrong protocol');
  });

  it('logs each reason once, as long as it stays the same', () => {
    make();
    search();
    results = ['a', 'a', 'b', 'b', 'a'].map((text) => new Error(text));
    search();
    expect(lines).toEqual([
      'no connection: a; retrying',
      'no connection: b; retrying',
      'no connection: a; retrying',
      'connected',
    ]);
  });

  it('logs reasons that keep changing once a minute after the first few', () => {
    make();
    search();
    seeker.seek(60_000);
    for (let i = 0; i < 1000; i++) {
      now += 1000;
      seeker.retry(new Error(`reason ${i}`));
    }
    expect(lines.length).toBeGreaterThan(16);
    expect(lines.length).toBeLessThan(28);
  });
});
