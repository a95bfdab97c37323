import { OptionError } from '@ivshmem/linux';
import { groupId, userId } from '@ivshmem/linux/process';
import { type ListenAddress, parseListenAddress } from '@ivshmem/monitor/listen-address';
import { allowedBy } from '../server/access.ts';
import type { HostServerSettings } from '../server/options.ts';
import { type GivenOption, getopt, type OptionKind } from './getopt.ts';
import { DEFAULT_PID_FILE, type ServerDialect, serverOptions } from './option-table.ts';
import { parseCount, parseMode, parseSize } from './sizes.ts';

/** A parsed command line of the host server. */
export interface ServerArguments {
  readonly help: boolean;
  /** Log each event; in the foreground only. */
  readonly verbose: boolean;
  /** Stay in the foreground. */
  readonly foreground: boolean;
  /** The file for a daemon's process ID. */
  readonly pidFile: string;
  /** `pidFile` was given explicitly. */
  readonly pidFileGiven: boolean;
  /** The given settings, without defaults and range checks. */
  readonly settings: Partial<HostServerSettings>;
  /** Log JSON even on a terminal. */
  readonly json: boolean;
  /** Address of the metrics; null: serve none. */
  readonly metrics: ListenAddress | null;
  /** A file that describes the links, instead of `settings`. */
  readonly config: string | null;
}

/** How each option of a dialect takes its value, by its name without dashes. */
function optionKinds(dialect: ServerDialect): Record<'short' | 'long', ReadonlyMap<string, OptionKind>> {
  const options = serverOptions(dialect).flatMap((group) => group.options);
  const named = (prefix: RegExp) =>
    new Map(
      options
        .filter(({ name }) => prefix.test(name))
        .map(({ name, kind }) => [name.replace(prefix, ''), kind]),
    );
  const long = named(/^--/);
  return { short: named(/^-(?!-)/), long: new Map([...long, ['help', 'flag']]) };
}

function read<T>({ option, value }: GivenOption, parse: (text: string) => T | null, expected: string): T {
  const parsed = parse(value);
  if (parsed !== null) return parsed;
  throw new OptionError(option, `${option} ${value}: must be ${expected}`);
}

const readNumber = (given: GivenOption) => read(given, parseCount, 'a number, such as 2 or 0x8003');
const readSize = (given: GivenOption) => read(given, parseSize, 'a size in bytes, such as 65536, 64K or 4M');
const readPageSize = (given: GivenOption) =>
  read(given, (text) => parseSize(text) || null, 'a size in bytes, such as 2M or 1G');

function readAccount({ option, value }: GivenOption, find: (text: string) => number): number {
  try {
    return find(value);
  } catch (error) {
    throw new OptionError(option, `${option}: ${(error as Error).message}`);
  }
}

/**
 * Parses a command line (without program name) with `getopt`. If an option is repeated, the last one counts; --allow-uid
 * and --allow-gid accumulate. Parsing stops at `-h`. Throws {@link OptionError}. Ranges are checked by `completeSettings`.
 */
export function parseServerArguments(
  argv: readonly string[],
  dialect: ServerDialect = 'original',
): ServerArguments {
  const settings: { -readonly [Key in keyof HostServerSettings]?: HostServerSettings[Key] } = {};
  const result = {
    help: false,
    verbose: false,
    foreground: false,
    pidFile: DEFAULT_PID_FILE,
    pidFileGiven: false,
    settings,
    json: false,
    metrics: null as ListenAddress | null,
    config: null as string | null,
  };
  const access = { uids: [] as number[], gids: [] as number[] };
  let hugePageSize: number | undefined;
  let ofLink: string | undefined;
  const { short, long } = optionKinds(dialect);
  const options = getopt(argv, short, long);
  let next = options.next();
  for (; !next.done; next = options.next()) {
    const given = next.value;
    const { option, value } = given;
    if (!NOT_OF_A_LINK.has(option)) ofLink ??= option;
    switch (option) {
      case '-h':
      case '--help':
        return { ...result, help: true };
      case '-v':
        result.verbose = true;
        break;
      case '-F':
        result.foreground = true;
        break;
      case '-p':
        result.pidFile = value;
        result.pidFileGiven = true;
        break;
      case '-S':
        settings.socketPath = value;
        break;
      case '-M':
        settings.sharedMemory = { kind: 'posix', name: value };
        break;
      case '-m':
        settings.sharedMemory = { kind: 'directory', path: value };
        break;
      case '-l':
        settings.size = readSize(given);
        break;
      case '-o':
        settings.outputSectionSize = readSize(given);
        break;
      case '-n':
        settings.maxPeers = readNumber(given);
        break;
      case '-V':
        settings.vectors = readNumber(given);
        break;
      case '-P':
        settings.protocol = readNumber(given);
        break;
      case '--json':
        result.json = true;
        break;
      case '--config':
        result.config = value;
        break;
      case '--metrics':
        result.metrics = read(
          given,
          parseListenAddress,
          'a port, or an IP address and a port, such as 16646 or [::1]:16646',
        );
        break;
      case '--mode':
        settings.mode = read(given, parseMode, 'permissions in octal, such as 660');
        break;
      case '--group':
        settings.group = readAccount(given, groupId);
        break;
      case '--allow-uid':
        access.uids.push(readAccount(given, userId));
        break;
      case '--allow-gid':
        access.gids.push(readAccount(given, groupId));
        break;
      case '--hugepages':
        hugePageSize = value === '' ? 2 ** 21 : readPageSize(given);
        break;
      case '--evict-after':
        settings.evictAfter = readNumber(given);
        break;
    }
  }
  const [operand] = next.value;
  if (operand !== undefined) {
    throw new OptionError(
      operand,
      `${JSON.stringify(operand)}: unexpected argument, only options are accepted`,
    );
  }
  if (result.config !== null && ofLink !== undefined) {
    throw new OptionError(ofLink, `${ofLink}: not with --config: put it into the configuration file`);
  }
  if (hugePageSize !== undefined) {
    if (settings.sharedMemory !== undefined) {
      throw new OptionError('--hugepages', '--hugepages: only for a memfd: omit -M and -m');
    }
    settings.sharedMemory = { kind: 'memfd', seal: true, hugePageSize };
  }
  if (access.uids.length + access.gids.length > 0) settings.allow = allowedBy(access);
  return result;
}

const NOT_OF_A_LINK = new Set(['-h', '--help', '-v', '-F', '-p', '--json', '--config', '--metrics']);
