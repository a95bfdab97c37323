import { OptionError } from '@ivshmem/linux';

/** `value`: requires a value. `optional`: takes a value only if attached by `=`. */
export type OptionKind = 'flag' | 'value' | 'optional';

/** A given option: its full name with dashes, and its value, empty if it has none. */
export interface GivenOption {
  readonly option: string;
  readonly value: string;
}

/**
 * Parses a command line like getopt_long(3) of the GNU C library: short options may be bundled (`-Fv`); values are
 * attached (`-l4M`, `--mode=660`) or are the next argument, even if it begins with a dash; long names may be abbreviated if
 * unambiguous; operands may stand between options; `--` ends the options. Yields the options in order and returns the
 * operands. Throws {@link OptionError} after yielding the options before the invalid one.
 */
export function* getopt(
  argv: readonly string[],
  short: ReadonlyMap<string, OptionKind>,
  long: ReadonlyMap<string, OptionKind>,
): Generator<GivenOption, readonly string[]> {
  const operands: string[] = [];
  const rest = [...argv];
  const following = (option: string): string => {
    const value = rest.shift();
    if (value === undefined) throw new OptionError(option, `${option}: requires a value`);
    return value;
  };
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    if (argument === '--') return [...operands, ...rest];
    if (argument === '-' || !argument.startsWith('-')) {
      operands.push(argument);
      continue;
    }
    if (argument.startsWith('--')) {
      const end = argument.indexOf('=');
      const name = fullName(argument.slice(2, end === -1 ? undefined : end), long);
      const attached = end === -1 ? undefined : argument.slice(end + 1);
      const option = `--${name}`;
      const kind = long.get(name);
      if (kind === 'flag' && attached !== undefined) {
        throw new OptionError(option, `${option}: takes no value`);
      }
      yield { option, value: attached ?? (kind === 'value' ? following(option) : '') };
      continue;
    }
    for (let at = 1; at < argument.length; at++) {
      const option = `-${argument[at]}`;
      const kind = short.get(argument[at]!);
      if (kind === undefined) throw new OptionError(option, `${option}: unknown option`);
      if (kind === 'flag') {
        yield { option, value: '' };
        continue;
      }
      const attached = argument.slice(at + 1);
      yield { option, value: attached === '' ? following(option) : attached };
      break;
    }
  }
  return operands;
}

function fullName(given: string, long: ReadonlyMap<string, OptionKind>): string {
  if (long.has(given)) return given;
  const [name, ...others] = [...long.keys()].filter((candidate) => candidate.startsWith(given));
  if (name === undefined) throw new OptionError(`--${given}`, `--${given}: unknown option`);
  if (others.length === 0) return name;
  const names = [name, ...others].map((candidate) => `--${candidate}`);
  throw new OptionError(`--${given}`, `--${given}: ambiguous: could be ${names.join(', ')}`);
}
