import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { serverUsage } from '@ivshmem/host-server/service';
import { benchHostServer } from './host-server.ts';
import { describeMachine, machineText } from './machine.ts';

// `npm run figures:host-server`: writes into docs/host-server.md the usage, what the benchmark measures here, and what
// ten minutes of `npm run hostile` leave behind; --hostile FILE takes the output of an earlier run instead.

const ROUNDS = 3;
const DOCUMENT = new URL('../../docs/host-server.md', import.meta.url);
const HOSTILE = fileURLToPath(new URL('../dist/hostile-mix.js', import.meta.url));

const { values } = parseArgs({
  options: { hostile: { type: 'string' }, seconds: { type: 'string', default: '600' } },
});

function runHostile(): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [HOSTILE, '--seconds', values.seconds], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`something was lost:\n${stdout}${stderr}`);
  return stdout;
}

/** Puts `text` between `<!-- output: name -->` and `<!-- end -->`. */
function replace(document: string, name: string, text: string): string {
  const pattern = new RegExp(`(<!-- output: ${name} -->\n).*?(<!-- end -->)`, 's');
  if (!pattern.test(document)) throw new Error(`docs/host-server.md has no place for "${name}"`);
  return document.replace(pattern, (_whole, begin, end) => `${begin}${text}${end}`);
}

const code = (text: string) => `\`\`\`\n${text.trim()}\n\`\`\`\n`;
const hostile = values.hostile === undefined ? runHostile() : readFileSync(values.hostile, 'utf8');
const figures = await benchHostServer(ROUNDS);
const rows = [10, 100, 1000].map((peers) => {
  const cell = (name: string, digits: number) => {
    const { median, minimum, maximum } = figures[`host-server-${name}-${peers}`]!;
    return `${median.toFixed(digits)} (${minimum.toFixed(digits)} … ${maximum.toFixed(digits)})`;
  };
  return `| ${peers} | ${cell('join-ms', 1)} | ${cell('joins-per-s', 0)} | ${cell('kib-per-peer', 1)} |`;
});
const joins = `Measured on ${machineText(await describeMachine())}; median (minimum … maximum).

| peers | N-th join, ms | joins/s | KiB of memory a peer |
|---|---|---|---|
${rows.join('\n')}
`;
let document = readFileSync(DOCUMENT, 'utf8');
document = replace(document, 'usage', code(serverUsage('ivshmem server', 'extended')));
document = replace(document, 'joins', joins);
document = replace(document, 'hostile', code(hostile));
writeFileSync(DOCUMENT, document);
