import { DEFAULT_SETTINGS, MAX_SERVER_VECTORS } from '../server/options.ts';
import type { OptionKind } from './getopt.ts';

/** `original`: exactly the options of the original host server; `extended`: these and the long ones. */
export type ServerDialect = 'original' | 'extended';

export const DEFAULT_PID_FILE = '/var/run/ivshmem-server.pid';

/** An option of the host server, as parser, help, man page and completion use it. */
export interface ServerOption {
  /** With its dashes. */
  readonly name: string;
  readonly kind: OptionKind;
  /** What stands for its value in the help; empty for a flag. */
  readonly value: string;
  readonly text: string;
}

/** Options under a heading of the help; those of the original host server have none. */
export interface ServerOptionGroup {
  readonly heading: string;
  readonly options: readonly ServerOption[];
}

/** All options of a dialect, in the order of the help. */
export function serverOptions(dialect: ServerDialect): readonly ServerOptionGroup[] {
  const original = { heading: '', options: originalOptions(dialect) };
  return dialect === 'original' ? [original] : [original, ...EXTENDED];
}

const flag = (name: string, text: string): ServerOption => ({ name, kind: 'flag', value: '', text });
const value = (name: string, placeholder: string, text: string): ServerOption => ({
  name,
  kind: 'value',
  value: placeholder,
  text,
});

function originalOptions(dialect: ServerDialect): ServerOption[] {
  const or = (extended: string, original: string) => (dialect === 'extended' ? extended : original);
  return [
    flag('-h', 'show this help'),
    flag('-v', `verbose: ${or('log details, too', 'log each event')} (needs -F)`),
    flag(
      '-F',
      'stay in the foreground; default: become a daemon, unless started by a service manager such as systemd without -p',
    ),
    value('-p', 'FILE', `write the daemon's process ID to FILE; default ${DEFAULT_PID_FILE}`),
    value('-S', 'PATH', `listen on the Unix socket PATH; default ${DEFAULT_SETTINGS.socketPath}`),
    value('-M', 'NAME', 'share the POSIX shared memory object NAME instead of a sealed memfd'),
    value('-m', 'DIR', 'share an unnamed file in DIR, for example in hugetlbfs, instead'),
    value('-l', 'SIZE', 'size of the shared memory, rounded up to a power of two; default 4M'),
    value(
      '-o',
      'SIZE',
      `size of each output section, a multiple of the page size (4K on most hosts); default 0; ${or('with -P 1, the largest that fits, up to 1M', 'required with -P 1, for example 1M')}`,
    ),
    value('-n', 'PEERS', 'maximum number of peers, 2 to 1024; default 2'),
    value(
      '-V',
      'COUNT',
      `interrupt vectors per peer, 1 to ${MAX_SERVER_VECTORS}; default 1; ${or('with -P 1, 2', 'Linux requires 2 with -P 1')}`,
    ),
    value(
      '-P',
      'TYPE',
      'protocol type, 0 to 0xffff; default 0. 1 is Ethernet between two peers; 0x8000 to 0xffff is virtio between two peers: peer 0 is the back end, peer 1 the front end',
    ),
  ];
}

const EXTENDED: readonly ServerOptionGroup[] = [
  {
    heading: 'Access',
    options: [
      value('--mode', 'MODE', 'permissions of the socket in octal; default 600'),
      value('--group', 'GROUP', 'group of the socket, by name or number'),
      value('--allow-uid', 'USER', 'accept only this user; may be repeated, and combined with --allow-gid'),
      value('--allow-gid', 'GROUP', 'accept only this primary group; may be repeated'),
    ],
  },
  {
    heading: 'Memory and limits',
    options: [
      {
        name: '--hugepages',
        kind: 'optional',
        value: 'SIZE',
        text: 'use a sealed memfd of huge pages of 2M (default) or 1G',
      },
      value(
        '--evict-after',
        'SECS',
        `evict clients that do not read messages for SECS seconds, 1 to 86400; default ${DEFAULT_SETTINGS.evictAfter}`,
      ),
    ],
  },
  {
    heading: 'Operation',
    options: [
      value('--config', 'FILE', 'serve the links described in FILE (JSON); SIGHUP reloads it'),
      value(
        '--metrics',
        '[ADDR:]PORT',
        'serve /metrics for Prometheus, and /healthz; default ADDR 127.0.0.1',
      ),
      flag(
        '--json',
        'log JSON lines even on a terminal; otherwise JSON is used only if the output is not a terminal',
      ),
    ],
  },
];
