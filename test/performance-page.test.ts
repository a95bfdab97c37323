import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { makeReport } from '../bench/src/report.ts';
import { readResults } from '../bench/src/results.ts';

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
