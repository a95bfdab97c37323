import { readFileSync, writeFileSync } from 'node:fs';
import { type CheckInfo, serverChecks } from '@ivshmem/conformance';
import { expect, it } from 'vitest';
import type { Mutant } from '../packages/conformance/src/mutant.test-support.ts';
import { serverMutants } from '../packages/conformance/src/server/mutants.test-support.ts';

const PAGE = new URL('../docs/conformance-kit.md', import.meta.url);
const page = readFileSync(PAGE, 'utf8');

const subjects: Record<string, { checks: readonly CheckInfo[]; mutants: readonly Mutant[] }> = {
  server: { checks: serverChecks, mutants: serverMutants },
};

/** A row for each check: what it requires, and which faults of ours it has noticed. */
function table(name: string): string {
  const { checks, mutants } = subjects[name]!;
  const rows = checks.map(({ id, level, hostile, sentence, source }) => {
    const faults = mutants.filter(({ check }) => check === id).map(({ fault }) => fault);
    const requirement = `${hostile ? 'Hostile. ' : ''}${sentence} (${source})`;
    return `| \`${id.slice(name.length + 1)}\` | ${level} | ${requirement} | ${faults.join('; ')} |`;
  });
  const faults = mutants.filter(({ check }) => checks.some(({ id }) => id === check)).length;
  return [
    `${checks.length} checks, ${faults} faults.`,
    '',
    '| check | level | what a conforming subject does | faults that it notices |',
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

it('docs/conformance-kit.md lists the checks and mutants that there are; otherwise, UPDATE=1 updates it', () => {
  const updated = page.replace(
    /(<!-- checks: (\w+) -->\n).*?(<!-- end -->)/gs,
    (_, begin, name, end) => `${begin}${table(name)}${end}`,
  );
  if (process.env.UPDATE !== undefined) writeFileSync(PAGE, updated);
  else expect(page).toBe(updated);
});

it('each mutant names a check that there is, and each subject has its table', () => {
  for (const [name, { checks, mutants }] of Object.entries(subjects)) {
    const ids = new Set(checks.map(({ id }) => id));
    expect(ids.size).toBe(checks.length);
    expect(mutants.filter(({ check }) => !ids.has(check))).toEqual([]);
    expect(page).toContain(`<!-- checks: ${name} -->`);
  }
});

it('each check names a page and a section that exist', () => {
  const sources = Object.values(subjects).flatMap(({ checks }) => checks.map(({ source }) => source));
  for (const source of new Set(sources)) {
    const [, path, section, heading] = /^(docs\/[\w.-]+), (?:section (\d+)|"(.+)")$/.exec(source) ?? [];
    expect(path, source).toBeDefined();
    const text = readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
    const line = section === undefined ? `# ${heading}\n` : `## ${section}. `;
    expect(text.includes(line), source).toBe(true);
  }
});
