import type { HostServerSettings } from './options.ts';
import { DEFAULT_SETTINGS, MAX_SERVER_VECTORS } from './options.ts';

/** What the command line of the host server says. */
export interface ServerArguments {
  readonly help: boolean;
  /** Log each event; in the foreground only. */
  readonly verbose: boolean;
  /** Stay in the foreground. */
  readonly foreground: boolean;
  /** Where a daemon writes its process ID. */
  readonly pidFile: string;
  /** What was given, not yet checked against each other. */
  readonly settings: Partial<HostServerSettings>;
}

export const DEFAULT_PID_FILE = '/var/run/ivshmem-server.pid';

/** A command line that is no good. The message names the option and what it takes. */
export class ServerArgumentError extends Error {
  override readonly name = 'ServerArgumentError';
}

/** The options of the original host server, letter for letter. */
export function serverUsage(program: string): string {
  return `Usage: ${program} [OPTION]...
  -h        show this help
  -v        verbose: log each event (needs -F)
  -F        stay in the foreground; the default is to become a daemon
  -p FILE   where a daemon writes its process ID; default ${DEFAULT_PID_FILE}
  -S PATH   Unix socket to listen at; default ${DEFAULT_SETTINGS.socketPath}
  -M NAME   share a POSIX shared memory object instead of a sealed memfd
  -m DIR    share a file in DIR, for example in hugetlbfs, instead
  -l SIZE   size of the shared memory, rounded up to a power of two; default 4M
  -o SIZE   size of each output section, a multiple of 4K; default 0
  -n PEERS  maximum number of peers, 2 to 1024; default 2
  -V COUNT  interrupt vectors of each peer, 1 to ${MAX_SERVER_VECTORS}; default 1
  -P TYPE   protocol type, 0 to 0xffff; default 0. The virtio ones (0x8000 to 0xffff)
            are for two peers: peer 0 becomes the back end, peer 1 the front end
Sizes are in bytes, or have a suffix: K, M, G or T. Numbers may be hexadecimal (0x...).
By default clients cannot resize the memory, so none can take it from the others; with
-M and -m they can. Exit status: 0 after SIGINT or SIGTERM, 1 on failure, 2 for an option
that is no good.
`;
}

const WITH_VALUE = 'pSMmlonVP';
const WITHOUT_VALUE = 'hvF';
const SUFFIXES = 'BKMGTPE';

/** A count as strtoull(3) with base 0 reads it: decimal, 0x hexadecimal, or octal after a 0. */
function parseNumber(option: string, text: string): number {
  const octal = /^0[0-7]+$/.test(text);
  const value = octal
    ? Number.parseInt(text, 8)
    : /^(0x[0-9a-f]+|0|[1-9]\d*)$/i.test(text)
      ? Number(text)
      : NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new ServerArgumentError(`-${option} ${text}: must be a number, such as 2 or 0x8003`);
}

/** A size in bytes, as QEMU reads it: fractions are for suffixes, suffixes for any case. */
function parseSize(option: string, text: string): number {
  const [, number, fraction, suffix] = /^(0x[0-9a-f]+|\d+(\.\d+)?)([bkmgtpe])?$/i.exec(text) ?? [];
  const power = SUFFIXES.indexOf((suffix ?? 'b').toUpperCase());
  const value = number === undefined ? Number.NaN : Math.floor(Number(number) * 1024 ** power);
  if (Number.isSafeInteger(value) && !(power === 0 && fraction !== undefined)) return value;
  throw new ServerArgumentError(`-${option} ${text}: must be a size in bytes, such as 65536, 64K or 4M`);
}

/**
 * Reads a command line (without program name) as getopt(3) does: options may be bundled (`-Fv`), values attached
 * (`-l4M`), the last one of several counts. Throws {@link ServerArgumentError}. Ranges are checked when the server is
 * made of it.
 */
export function parseServerArguments(argv: readonly string[]): ServerArguments {
  let help = false;
  let verbose = false;
  let foreground = false;
  let pidFile = DEFAULT_PID_FILE;
  const settings: { -readonly [Key in keyof HostServerSettings]?: HostServerSettings[Key] } = {};
  for (const [option, value] of options(argv)) {
    switch (option) {
      case 'h':
        help = true;
        break;
      case 'v':
        verbose = true;
        break;
      case 'F':
        foreground = true;
        break;
      case 'p':
        pidFile = value;
        break;
      case 'S':
        settings.socketPath = value;
        break;
      case 'M':
        settings.sharedMemory = { kind: 'posix', name: value };
        break;
      case 'm':
        settings.sharedMemory = { kind: 'directory', path: value };
        break;
      case 'l':
        settings.size = parseSize(option, value);
        break;
      case 'o':
        settings.outputSectionSize = parseSize(option, value);
        break;
      case 'n':
        settings.maxPeers = parseNumber(option, value);
        break;
      case 'V':
        settings.vectors = parseNumber(option, value);
        break;
      case 'P':
        settings.protocol = parseNumber(option, value);
        break;
    }
  }
  if (verbose && !foreground && !help) {
    throw new ServerArgumentError('-v: a daemon has nowhere to log to: add -F');
  }
  return { help, verbose, foreground, pidFile, settings };
}

function* options(argv: readonly string[]): Generator<[option: string, value: string]> {
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i]!;
    if (argument === '--help') {
      yield ['h', ''];
      continue;
    }
    if (!/^-[^-]/.test(argument)) {
      throw new ServerArgumentError(`${JSON.stringify(argument)}: unexpected, options are single letters`);
    }
    for (let at = 1; at < argument.length; at++) {
      const option = argument[at]!;
      if (WITHOUT_VALUE.includes(option)) {
        yield [option, ''];
        continue;
      }
      if (!WITH_VALUE.includes(option)) throw new ServerArgumentError(`-${option}: unknown option`);
      const attached = argument.slice(at + 1);
      const value = attached === '' ? argv[++i] : attached;
      if (value === undefined) throw new ServerArgumentError(`-${option}: needs a value`);
      yield [option, value];
      break;
    }
  }
}
