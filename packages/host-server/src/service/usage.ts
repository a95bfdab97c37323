import { DEFAULT_SETTINGS, MAX_SERVER_VECTORS } from '../server/options.ts';
import { DEFAULT_PID_FILE, type ServerDialect } from './arguments.ts';

/** The --help text: the options of the original host server; with the extended dialect also the long ones. */
export function serverUsage(program: string, dialect: ServerDialect = 'original'): string {
  const isExtended = dialect === 'extended';
  return `Usage: ${program} [OPTION]...
  -h        show this help
  -v        verbose: ${isExtended ? 'log details, too' : 'log each event'} (needs -F)
  -F        stay in the foreground; default: become a daemon, unless started by a service
            manager such as systemd without -p
  -p FILE   write the daemon's process ID to FILE; default ${DEFAULT_PID_FILE}
  -S PATH   listen on the Unix socket PATH; default ${DEFAULT_SETTINGS.socketPath}
  -M NAME   share the POSIX shared memory object NAME instead of a sealed memfd
  -m DIR    share an unnamed file in DIR, for example in hugetlbfs, instead
  -l SIZE   size of the shared memory, rounded up to a power of two; default 4M
  -o SIZE   size of each output section, a multiple of the page size (4K on most hosts);
            default 0${isExtended ? '; with -P 1, the largest that fits, up to 1M' : '; required with -P 1, for example 1M'}
  -n PEERS  maximum number of peers, 2 to 1024; default 2
  -V COUNT  interrupt vectors per peer, 1 to ${MAX_SERVER_VECTORS}; default 1${isExtended ? '; with -P 1, 2' : '; Linux requires 2 with -P 1'}
  -P TYPE   protocol type, 0 to 0xffff; default 0. 1 is Ethernet between two peers;
            0x8000 to 0xffff is virtio between two peers: peer 0 is the back end, peer 1
            the front end
${isExtended ? EXTENDED : ''}Sizes are in bytes, or have a suffix: K, M, G or T. Numbers may be hexadecimal (0x...).
A sealed memfd cannot be truncated by clients and allocates memory as it is used. With -M
and -m, clients can truncate the memory, and all of it is reserved at startup.
Exit status: 0 after SIGINT or SIGTERM, 1 on failure, 2 for an invalid option.
${isExtended ? EXAMPLES : ''}`;
}

const EXTENDED = `
Access:
  --mode MODE         permissions of the socket in octal; default 600
  --group GROUP       group of the socket, by name or number
  --allow-uid USER    accept only this user; may be repeated, and combined with
  --allow-gid GROUP   accept only this primary group; may be repeated
Memory and limits:
  --hugepages[=SIZE]  use a sealed memfd of huge pages of 2M (default) or 1G
  --evict-after SECS  evict clients that do not read messages for SECS seconds, 1 to 86400;
                      default ${DEFAULT_SETTINGS.evictAfter}
Operation:
  --config FILE       serve the links described in FILE (JSON); SIGHUP reloads it
  --metrics [ADDR:]PORT  serve /metrics for Prometheus, and /healthz; default ADDR 127.0.0.1
  --json              log JSON lines even on a terminal; otherwise JSON is used only if the
                      output is not a terminal

`;

const EXAMPLES = `
Examples:
  Ethernet between two peers, in the foreground:
    ivshmem server -F -S /run/ivshmem.sock -P 1
  As a daemon, with memory that other programs can open by name:
    ivshmem server -S /run/ivshmem.sock -M ivshmem -P 1 -p /run/ivshmem.pid
  Three peers that share a read/write section in huge pages, open to group kvm:
    ivshmem server -F -l 64M -n 3 --hugepages --mode 660 --group kvm
  All links of a host, with metrics on port 16646 of the loopback interface:
    ivshmem server -F --config /etc/ivshmem/links.json --metrics 16646
  List the connected peers:
    ivshmem peers -S /run/ivshmem.sock
`;
