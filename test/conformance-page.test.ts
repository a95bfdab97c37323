import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const at = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const page = readFileSync(at('docs/conformance.md'), 'utf8');
/** Rows of the tables that number their requirements. */
const rows = page.split('\n').filter((line) => /^\| [A-Z]\d+ \|/.test(line));
const proofs = [...page.matchAll(/`([\w-]+\/src\/[\w./-]+\.test\.ts)`: "([^"]+)"/g)];

/** The titles of a file's tests. */
function titlesOf(file: string): Set<string> {
  const source = readFileSync(at(`packages/${file}`), 'utf8');
  const found = new Set<string>();
  // A title is the first string behind it( or it.each(…)(, or that of a row of a table.
  for (const [, , title] of source.matchAll(/(?:\(|\[|^\s+)(['"])((?:(?!\1).)+)\1,/gm)) found.add(title!);
  return found;
}

describe('the page on conformance', () => {
  it('numbers its requirements without a gap', () => {
    const numbers = new Map<string, number[]>();
    for (const row of rows) {
      const [, letter, number] = /^\| ([A-Z])(\d+)/.exec(row)!;
      numbers.set(letter!, [...(numbers.get(letter!) ?? []), Number(number)]);
    }
    expect([...numbers.keys()]).toEqual(['H', 'L', 'C', 'V', 'M', 'R', 'S', 'P']);
    for (const list of numbers.values()) expect(list).toEqual(list.map((_, index) => index + 1));
  });

  it('has a test for each of them, or says whose duty it is', () => {
    const without = rows.filter((row) => !/\.test\.ts`: "/.test(row) && !/ duty|Does not apply/.test(row));
    expect(without).toEqual([]);
  });

  it('names tests that exist', () => {
    expect(proofs.length).toBeGreaterThan(rows.length);
    const missing = proofs.filter(([, file, title]) => !titlesOf(file!).has(title!));
    expect(missing.map(([text]) => text)).toEqual([]);
  });
});
