import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { judge } from '../bench/src/goals.ts';
import { makeReport } from '../bench/src/report.ts';
import { type Measurement, readResults } from '../bench/src/results.ts';
import { barPlot } from '../bench/src/svg.ts';

const text = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');

it('docs/performance.md and README.md show what bench/results has, and nothing else', () => {
  const documents = [text('../docs/performance.md'), text('../README.md')] as const;
  const { performance, readme, pictures } = makeReport(readResults(), ...documents);
  expect([performance, readme]).toEqual(documents);
  const found = readdirSync(new URL('../docs/performance/', import.meta.url)).sort();
  expect(found).toEqual([...pictures.keys()].sort());
  for (const [name, svg] of pictures) expect(svg).toBe(text(`../docs/performance/${name}`));
});

it('without results, both say so', () => {
  const { performance, readme, pictures } = makeReport(
    new Map(),
    '<!-- goals -->\nold\n<!-- end -->\n<!-- generated: tap -->\nold\n<!-- end -->\n',
    '<!-- output: bench -->\nold\n<!-- end -->\n',
  );
  expect(performance).toMatch(/Not measured yet/);
  expect(readme).toMatch(/Not measured yet/);
  expect(pictures.size).toBe(0);
});

it('a plot has a scale from 0 for each panel, names as text, and the spread', () => {
  const bar = { minimum: 5, maximum: 20, ours: false };
  const svg = barPlot('a & b', [
    {
      title: 'one',
      bars: [
        { ...bar, label: '<x>', median: 10 },
        { ...bar, label: 'y', median: 20 },
      ],
    },
    { title: 'other', bars: [{ ...bar, label: 'z', median: 1, minimum: 1, maximum: 1, ours: true }] },
  ]);
  const widths = [...svg.matchAll(/<rect class="(bar|ours)".*? width="([\d.]+)"/g)];
  expect(widths.map(([, kind]) => kind)).toEqual(['bar', 'bar', 'ours']);
  const [half, whole, alone] = widths.map(([, , width]) => Number(width));
  expect([whole! / half!, alone]).toEqual([2, whole]);
  expect(svg).toContain('&lt;x>');
  expect(svg).toContain('aria-label="a &amp; b"');
});

it('goals are judged by medians, and left out without results', () => {
  const rings = (subject: string, ...values: number[]) => {
    return { what: '64-byte frames', subject, unit: 'million/s', values };
  };
  const result = (measurements: Measurement[]) => {
    const machine = { cpu: '', cpus: 2, kernel: '', node: '', busyLoops: 2 };
    return new Map([
      ['rings', { part: 'rings', date: '', command: '', machine, settings: {}, measurements }],
    ]);
  };
  const others = [rings('C, per frame', 10, 10, 10), rings('C, batched', 10, 10, 10)];
  const judged = judge(result([rings('ivshmem', 1, 9, 20), ...others]));
  expect(judged.map(({ found, isMet }) => [found.median, isMet])).toEqual([
    [0.9, false],
    [0.9, true],
  ]);
  expect(judge(result(others))).toEqual([]);
});
