import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { makeReport } from './report.ts';
import { readResults } from './results.ts';

// `npm run performance`: writes the tables and pictures of docs/performance.md, and the table in README.md, out of
// bench/results. Measures nothing.

const PERFORMANCE = new URL('../../docs/performance.md', import.meta.url);
const README = new URL('../../README.md', import.meta.url);
const PICTURES = new URL('../../docs/performance/', import.meta.url);

const texts = [PERFORMANCE, README].map((url) => readFileSync(url, 'utf8')) as [string, string];
const { performance, readme, pictures } = makeReport(readResults(), ...texts);
writeFileSync(PERFORMANCE, performance);
writeFileSync(README, readme);
rmSync(PICTURES, { recursive: true, force: true });
mkdirSync(PICTURES, { recursive: true });
for (const [name, svg] of pictures) writeFileSync(new URL(name, PICTURES), svg);
