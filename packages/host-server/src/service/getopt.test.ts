import { spawnSync } from 'node:child_process';
import { OptionError } from '@ivshmem/linux';
import { describe, expect, it } from 'vitest';
import { getopt, type OptionKind } from './getopt.ts';

const SHORT = new Map<string, OptionKind>([
  ['h', 'flag'],
  ['F', 'flag'],
  ['l', 'value'],
  ['S', 'value'],
]);
const LONG = new Map<string, OptionKind>([
  ['help', 'flag'],
  ['metrics', 'value'],
  ['mode', 'value'],
  ['hugepages', 'optional'],
]);
const WORDS =
  '-h -F -l -S -lx -hF -Fl -FS -Fl4 -l=4 -hx -x - -- --help --help=1 --he --h --m --met --mode --mode=6 --mode= --mo=6=7 --hugepages --huge=1G --frob x "" a=b -5'
    .split(' ')
    .map((word) => word.replaceAll('"', ''));

/** Reproducible command lines of up to five words. */
function commandLines(count: number): string[][] {
  let seed = 1;
  const random = (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * below);
  };
  return Array.from({ length: count }, () =>
    Array.from({ length: 1 + random(5) }, () => WORDS[random(WORDS.length)]!),
  );
}

/** Their parse by getopt(1), which calls getopt_long(3); null for an error. */
function byLibc(lines: string[][]): (string[] | null)[] {
  const script = `
    while IFS= read -r -d $'\\1' line; do
      mapfile -d '' -t argv < <(printf %s "$line" | tr '\\2' '\\0')
      if result=$(getopt -q -o hFl:S: -l help,metrics:,mode:,hugepages:: -- "\${argv[@]}"); then
        eval "set -- $result"
        printf '%s\\2' "$@"
      else
        printf error
      fi
      printf '\\1'
    done
  `;
  const input = lines.map((line) => `${line.map((word) => `${word}\x02`).join('')}\x01`).join('');
  const { stdout } = spawnSync('bash', ['-c', script], { input, encoding: 'utf8' });
  return stdout
    .split('\x01')
    .slice(0, -1)
    .map((result) => (result === 'error' ? null : result.split('\x02').slice(0, -1)));
}

/** Our parse, in the same form. */
function byOurs(line: string[]): string[] | null {
  const result: string[] = [];
  try {
    const options = getopt(line, SHORT, LONG);
    let next = options.next();
    for (; !next.done; next = options.next()) {
      const { option, value } = next.value;
      const kind = option.startsWith('--') ? LONG.get(option.slice(2)) : SHORT.get(option.slice(1));
      result.push(option, ...(kind === 'flag' ? [] : [value]));
    }
    return [...result, '--', ...next.value];
  } catch (error) {
    expect(error).toBeInstanceOf(OptionError);
    return null;
  }
}

const hasGetopt = spawnSync('getopt', ['-T']).status === 4;

describe('getopt', () => {
  it.runIf(hasGetopt)('parses command lines like getopt_long(3)', () => {
    const lines = commandLines(400);
    const expected = byLibc(lines);
    expect(expected).toHaveLength(lines.length);
    expect(expected.filter((result) => result !== null).length).toBeGreaterThan(100);
    for (const [i, line] of lines.entries())
      expect({ line, result: byOurs(line) }).toEqual({ line, result: expected[i] });
  });

  it('throws after yielding the options before the invalid one', () => {
    const options = getopt(['-F', 'operand', '-x'], SHORT, LONG);
    expect(options.next().value).toEqual({ option: '-F', value: '' });
    expect(() => options.next()).toThrow('-x: unknown option');
  });
});
