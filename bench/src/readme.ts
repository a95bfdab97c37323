import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

// `npm run readme`: writes into README.md the summary that the demo prints on this machine.

const README = new URL('../../README.md', import.meta.url);
const COMMAND = fileURLToPath(new URL('../../packages/cli/dist/bin/ivshmem.js', import.meta.url));

const { status, stdout, stderr } = spawnSync(process.execPath, [COMMAND, 'demo'], { encoding: 'utf8' });
if (status !== 0) throw new Error(`the demo failed: ${stderr}`);
const document = readFileSync(README, 'utf8');
const place = /(<!-- output: demo -->\n).*?(<!-- end -->)/s;
if (!place.test(document)) throw new Error('README.md has no place for what the demo prints');
const begin = stdout.lastIndexOf('\nSummary\n');
if (begin === -1) throw new Error('the demo printed no summary');
const summary = stdout.slice(begin).trim();
const text = `\`\`\`\n${summary}\n\`\`\`\n`;
writeFileSync(
  README,
  document.replace(place, (_whole, before, after) => `${before}${text}${after}`),
);
