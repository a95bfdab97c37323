import { OptionError } from '@ivshmem/linux';

/** `value`: needs a value. `optional`: has one only if it is attached by `=`. */
export type OptionKind = 'flag' | 'value' | 'optional';

/** A given option: its full name with dashes, and its value, empty if it has none. */
export interface GivenOption {
  readonly option: string;
  readonly value: string;
}

/**
 * Reads a command line as getopt_long(3) of the GNU C library does: short options may be bundled (`-Fv`), values are
 * attached (`-l4M`, `--mode=660`) or follow, whatever they look like; long names may be shortened as long as they are
 * unambiguous; operands may stand between options; `--` ends the options. Yields the options in their order, and returns
 * the operands. Throws {@link OptionError} at the place of what is wrong, after the options before it.
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
    if (value === undefined) throw new OptionError(option, `${option}: needs a value`);
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
  throw new OptionError(`--${given}`, `--${given}: ambiguous, it may be ${names.join(', ')}`);
}
