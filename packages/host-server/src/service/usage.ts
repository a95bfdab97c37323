import { DEFAULT_SETTINGS, MAX_SERVER_VECTORS } from '../server/options.ts';
import { DEFAULT_PID_FILE, type ServerDialect } from './arguments.ts';

/** The help of the command line: the options of the original host server, and in its extension the long ones. */
export function serverUsage(program: string, dialect: ServerDialect = 'original'): string {
  const isExtended = dialect === 'extended';
  return `Usage: ${program} [OPTION]...
  -h        show this help
  -v        verbose: ${isExtended ? 'log details, too' : 'log each event'} (needs -F)
  -F        stay in the foreground; the default is to become a daemon, except when a
            service manager such as systemd has started it and no -p is given
  -p FILE   where a daemon writes its process ID; default ${DEFAULT_PID_FILE}
  -S PATH   Unix socket to listen at; default ${DEFAULT_SETTINGS.socketPath}
  -M NAME   share a POSIX shared memory object instead of a sealed memfd
  -m DIR    share a file in DIR, for example in hugetlbfs, instead
  -l SIZE   size of the shared memory, rounded up to a power of two; default 4M
  -o SIZE   size of each output section, a multiple of the page size (4K on most hosts);
            default 0${isExtended ? '; with -P 1, what fits, up to 1M' : '; -P 1 needs some, such as 1M'}
  -n PEERS  maximum number of peers, 2 to 1024; default 2
  -V COUNT  interrupt vectors of each peer, 1 to ${MAX_SERVER_VECTORS}; default 1${isExtended ? '; with -P 1, 2' : '; Linux needs 2 with -P 1'}
  -P TYPE   protocol type, 0 to 0xffff; default 0. 1 is Ethernet between two peers.
            The virtio ones (0x8000 to 0xffff) are for two peers: peer 0 becomes the back
            end, peer 1 the front end
${isExtended ? EXTENDED : ''}Sizes are in bytes, or have a suffix: K, M, G or T. Numbers may be hexadecimal (0x...).
By default clients cannot resize the memory, so none can take it from the others; with
-M and -m they can. That memory is reserved at the start; a memfd grows as it is used.
Exit status: 0 after SIGINT or SIGTERM, 1 on failure, 2 for a wrong option.
${isExtended ? EXAMPLES : ''}`;
}

const EXTENDED = `
Who may connect:
  --mode MODE         permissions of the socket in octal; default 600
  --group GROUP       group of the socket, by name or number
  --allow-uid USER    accept only this user; may be repeated, and combined with
  --allow-gid GROUP   accept only this primary group; may be repeated
Memory and limits:
  --hugepages[=SIZE]  a sealed memfd of huge pages of 2M (the default) or 1G
  --evict-after SECS  evict clients that leave messages unread for so long, 1 to 86400; default $DEFAULT_SETTINGS.evictAfter
Operation:
  --config FILE       serve all links that FILE describes (JSON); SIGHUP reads it again
  --metrics [ADDR:]PORT  serve /metrics for Prometheus, and /healthz; ADDR is 127.0.0.1 by default
  --json              log JSON lines also on a terminal; elsewhere the log is JSON anyway

`;

const EXAMPLES = `
Examples:
  For Ethernet between two peers, in the foreground:
    ivshmem server -F -S /run/ivshmem.sock -P 1
  As a daemon, memory in a POSIX object that can be opened by name:
    ivshmem server -S /run/ivshmem.sock -M ivshmem -P 1 -p /run/ivshmem.pid
  For three peers that share a read/write section of huge pages, for members of kvm:
    ivshmem server -F -l 64M -n 3 --hugepages --mode 660 --group kvm
  All links of a host, with metrics on port 16646 of the loopback interface:
    ivshmem server -F --config /etc/ivshmem/links.json --metrics 16646
  Who is connected:
    ivshmem peers -S /run/ivshmem.sock
`;
