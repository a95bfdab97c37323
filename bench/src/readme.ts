import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { DEFAULT_BUSY_POLL } from '@ivshmem/net';
import { benchRings } from './rings.ts';
import type { Figure } from './statistics.ts';
import { benchTap } from './tap.ts';

// `npm run readme`: writes into README.md what the demo and the benchmarks print on this machine.

const ROUNDS = 5;
const README = new URL('../../README.md', import.meta.url);
const COMMAND = fileURLToPath(new URL('../../packages/cli/dist/bin/ivshmem.js', import.meta.url));

/** Puts `text` between `<!-- output: name -->` and `<!-- end -->`. */
function replace(document: string, name: string, text: string): string {
  const pattern = new RegExp(`(<!-- output: ${name} -->\n).*?(<!-- end -->)`, 's');
  if (!pattern.test(document)) throw new Error(`README.md has no place for "${name}"`);
  return document.replace(pattern, (_whole, begin, end) => `${begin}${text}${end}`);
}

function runDemo(): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [COMMAND, 'demo'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`the demo failed: ${stderr}`);
  return `\`\`\`\n${stdout.trim()}\n\`\`\`\n`;
}

const digits = (value: number) => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
const spread = ({ median, minimum, maximum }: Figure) =>
  `${digits(median)} (${digits(minimum)} … ${digits(maximum)})`;

function tapTable(results: Record<string, Figure>): string {
  const rows = Object.keys(results)
    .filter((name) => name.endsWith(', ratio'))
    .map((name) => {
      const what = name.slice(0, -', ratio'.length);
      const ours = Object.keys(results).find((key) => key.startsWith(`${what}, `) && key !== name)!;
      const unit = ours.slice(`${what}, `.length);
      return `| ${what} | ${unit} | ${spread(results[ours]!)} | ${spread(results[`${ours}, veth`]!)} | ${spread(results[name]!)} |`;
    });
  return ['| | | this | veth pair | ratio |', '|---|---|---|---|---|', ...rows].join('\n');
}

function ringTable(results: Record<string, Figure>): string {
  const rows = Object.entries(results).map(
    ([name, figure]) => `| ${name.replace('rings-', '')} bytes | ${spread(figure)} |`,
  );
  return ['| frames of | million frames/s |', '|---|---|', ...rows].join('\n');
}

let document = readFileSync(README, 'utf8');
document = replace(document, 'demo', runDemo());
const rings = ringTable(await benchRings(ROUNDS));
const tap = tapTable(await benchTap(ROUNDS, DEFAULT_BUSY_POLL));
const machine = `${cpus().length} × ${cpus()[0]!.model}, Linux ${release()}, Node ${process.version}`;
const bench = `Measured on ${machine}, a virtual machine, in one run; median (minimum … maximum) of ${ROUNDS} rounds.

TAP to TAP through two workers, beside a veth pair in the same rounds, which passes frames by reference:

${tap}

The rings alone, between two threads; the producer copies each frame in, the consumer checks its descriptor and reads
its first word:

${rings}
`;
document = replace(document, 'bench', bench);
writeFileSync(README, document);
