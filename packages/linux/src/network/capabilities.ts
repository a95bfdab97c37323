import { closeSync, openSync, readFileSync } from 'node:fs';
import { SystemCallError } from '../errors.ts';
import { Netns } from './netns.ts';

// linux/capability.h
/** What TAP interfaces, packet sockets and network namespaces need. */
const needed = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13, CAP_SYS_ADMIN: 21 };

/** The capabilities among `needed` that a CapEff line of /proc/<pid>/status lacks. */
export function missingCapabilities(status: string): string[] {
  const effective = BigInt(`0x${status.match(/^CapEff:\s*([0-9a-f]+)$/m)?.[1] ?? '0'}`);
  return Object.entries(needed).flatMap(([name, bit]) => ((effective >> BigInt(bit)) & 1n ? [] : [name]));
}

/** The capabilities that this thread lacks for TAP interfaces and network namespaces. Throws Error without /proc. */
export function missingNetworkCapabilities(): string[] {
  return missingCapabilities(readFileSync('/proc/thread-self/status', 'latin1'));
}

/** Why this process cannot open /dev/net/tun, in one sentence with a remedy; null if it can. */
export function tunProblem(): string | null {
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
    return null;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EACCES') {
      return "/dev/net/tun can't be opened (EACCES): run this as root, or give its users access (chmod 666 /dev/net/tun).";
    }
    return `/dev/net/tun can't be opened (${code}): load the driver with "modprobe tun", or start the container with --device /dev/net/tun.`;
  }
}

/**
 * Why this process cannot create TAP interfaces and network namespaces, in one sentence with a remedy; null if it can.
 */
export function missingNetworkPrivilege(): string | null {
  let missing: string[];
  try {
    missing = missingNetworkCapabilities();
  } catch (error) {
    return `${(error as Error).message}: mount it with "mount -t proc proc /proc".`;
  }
  if (missing.length > 0) {
    const options = missing.map((name) => `--cap-add ${name.slice('CAP_'.length)}`).join(' ');
    return `This process lacks ${missing.join(', ')}: run it as root, or start the container with ${options}.`;
  }
  const noTun = tunProblem();
  if (noTun !== null) return noTun;
  // A seccomp profile can deny what the capabilities permit; only an attempt shows that.
  try {
    Netns.create().close();
  } catch (error) {
    if (error instanceof SystemCallError) return `Network namespaces can't be made: ${error.message}.`;
    throw error;
  }
  return null;
}
