import { readFileSync, writeFileSync } from 'node:fs';
import { programReferences } from '@ivshmem/cli/reference';
import { serverUsage } from '@ivshmem/host-server/service';
import { commandTables } from './reference/command-tables.ts';

// Writes what docs/commands.md and docs/host-server.md show of the commands' options.

/** Replaces what stands between two markers of a page. */
function replace(page: string, begin: string, end: string, text: string): void {
  const file = new URL(`../../docs/${page}`, import.meta.url);
  const before = readFileSync(file, 'utf8');
  const from = before.indexOf(begin) + begin.length;
  const to = before.indexOf(end, from);
  if (from < begin.length || to === -1) throw new Error(`docs/${page}: "${begin}" … "${end}" not found`);
  writeFileSync(file, `${before.slice(0, from)}${text}${before.slice(to)}`);
}

const tables = commandTables(await programReferences());
replace('commands.md', '<!-- generated: options -->\n', '<!-- end of options -->', `\n${tables}\n`);
replace('host-server.md', '<!-- output: usage -->\n```\n', '```', serverUsage('ivshmem server', 'extended'));
