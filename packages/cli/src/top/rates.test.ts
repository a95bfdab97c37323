import type { LinkView, PartReport } from '@ivshmem/monitor';
import { describe, expect, it } from 'vitest';
import { rateTable, rateText } from './rate-table.ts';
import { ratesOf, sortRates } from './rates.ts';

const since = '2026-01-02T03:04:05.678Z';
const process_ = { name: 'net-1', uid: 0, problem: null, report: null };

function link(name: string, ...parts: PartReport[]): LinkView {
  return { name, up: true, parts: parts.map((part) => ({ process: process_, part, up: true })) };
}

function tap(name: string, stats: Record<string, number>): PartReport {
  return {
    kind: 'interface',
    link: null,
    socket: '/s',
    since,
    tap: name,
    netns: null,
    pci: null,
    id: 0,
    mtu: 1500,
    outputSectionSize: 4096,
    local: 'RUN',
    peer: 'RUN',
    carrier: true,
    offloads: [],
    stats,
    log: null,
  };
}

const none = { rx: null, tx: null, rxBits: null, txBits: null, drops: null, interrupts: null, wakeups: null };

describe('rates', () => {
  it('are differences per second, of interfaces and devices', () => {
    const device = (doorbells: number): PartReport => ({
      kind: 'device',
      link: null,
      socket: '/s',
      since,
      vfioUser: '/vm',
      id: 0,
      protocol: 1,
      outputSectionSize: 4096,
      isolate: false,
      state: 'attached',
      stats: { doorbells },
      log: null,
    });
    const before = {
      time: 1000,
      links: [
        link('blue', tap('a', { txFrames: 5, txBytes: 100, dropsOversize: 1, dropsRunt: 0 }), device(10)),
      ],
    };
    const now = {
      time: 3000,
      links: [
        link('blue', tap('a', { txFrames: 9, txBytes: 1100, dropsOversize: 7, dropsRunt: 0 }), device(14)),
      ],
    };
    expect(ratesOf(before, now)).toEqual([
      {
        link: 'blue',
        part: 'a',
        process: 'net-1',
        state: 'up: RUN, peer RUN',
        rates: { ...none, tx: 2, txBits: 4000, drops: 3, doorbells: null },
        dropsBy: { oversize: 3 },
      },
      {
        link: 'blue',
        part: '/vm',
        process: 'net-1',
        state: 'in use by a VM',
        rates: { ...none, doorbells: 2 },
        dropsBy: {},
      },
    ]);
  });

  it('are not known at first, and not across a restart of the counters', () => {
    const sample = (time: number, wakeups: number) => ({
      time,
      links: [link('blue', tap('a', { wakeups }))],
    });
    expect(ratesOf(null, sample(0, 5))[0]!.rates.wakeups).toBeNull();
    expect(ratesOf(sample(0, 5), sample(1000, 4))[0]!.rates.wakeups).toBeNull();
    expect(ratesOf({ time: 0, links: [] }, sample(1000, 4))[0]!.rates.wakeups).toBeNull();
    expect(ratesOf(sample(7, 5), sample(7, 9))[0]!.rates.wakeups).toBeNull();
  });

  it('are sorted by a column, the largest first, and those without a value last', () => {
    const row = (part: string, tx: number | null) => ({
      link: 'l',
      part,
      process: 'p',
      state: 's',
      rates: { ...none, doorbells: null, tx },
      dropsBy: {},
    });
    const rows = [row('a', 1), row('b', null), row('c', 30)];
    expect(sortRates(rows, 'tx').map(({ part }) => part)).toEqual(['c', 'a', 'b']);
    expect(sortRates(rows, null).map(({ part }) => part)).toEqual(['a', 'b', 'c']);
    const [header, first] = rateTable(sortRates(rows, 'tx'), 'tx');
    expect(header).toMatch(/ TX FRAMES\/s\* /);
    expect(first).toMatch(/^l +c +s +- +30 +- /);
  });

  it.each([
    [null, '-'],
    [0, '0'],
    [0.25, '0.25'],
    [12.3, '12'],
    [999.4, '999'],
    [999.6, '1.00k'],
    [12_345, '12.3k'],
    [123_456_789, '123M'],
    [999_700, '1.00M'],
    [9.4e9, '9.40G'],
    [5e18, '5000000T'],
  ])('%s is shown as %s', (rate, text) => {
    expect(rateText(rate)).toBe(text);
  });

  it('show no character of another process that acts on a terminal', () => {
    const rows = ratesOf(null, { time: 0, links: [link('\x1b[2J', tap('\n', {}))] });
    expect(rateTable(rows, null).join('')).not.toMatch(/\p{Cc}/u);
  });
});
