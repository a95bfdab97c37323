import { readFileSync } from 'node:fs';
import { type Check, ok, warning } from './check.ts';

/** Descriptors that suffice for a server with many peers; a link needs about 40. */
const ENOUGH_FILES = 1024;
/** Each link and device needs one context of Linux AIO. */
const ENOUGH_CONTEXTS = 16;
const NAMESPACES = ['user', 'net', 'mnt'] as const;

/** Limits of this process and of the machine. */
export function checkLimits(): Check[] {
  const limits = readFileSync('/proc/self/limits', 'latin1');
  return [checkOpenFiles(limits), checkLockedMemory(limits), checkNamespaces(), checkAio()];
}

export function checkOpenFiles(limits: string): Check {
  const [soft, hard] = limitOf(limits, 'Max open files');
  const text = `RLIMIT_NOFILE is ${soft}, at most ${hard}`;
  // The host server raises the soft limit to the hard one.
  if (isEnough(hard, ENOUGH_FILES)) return ok('open files', text);
  return warning('open files', text, 'raise it with ulimit -Hn, or LimitNOFILE= of the unit');
}

/** Only memory that is locked counts: that of a server with huge pages, or of a QEMU with locked memory. */
export function checkLockedMemory(limits: string): Check {
  const [soft] = limitOf(limits, 'Max locked memory');
  const text = `RLIMIT_MEMLOCK is ${soft === 'unlimited' ? soft : `${soft} bytes`}; links lock no memory`;
  return ok('locked memory', text);
}

/** The soft and the hard limit of a line of /proc/self/limits. */
function limitOf(limits: string, name: string): [string, string] {
  const [, soft = 'unknown', hard = 'unknown'] =
    new RegExp(`^${name}\\s+(\\S+)\\s+(\\S+)`, 'm').exec(limits) ?? [];
  return [soft, hard];
}

function isEnough(limit: string, needed: number): boolean {
  return !/^\d+$/.test(limit) || Number(limit) >= needed;
}

function checkNamespaces(): Check {
  const names = NAMESPACES.map((kind) => `user.max_${kind}_namespaces`);
  const values = names.map((name) => sysctl(name));
  const low = names.filter((_, i) => values[i] === 0);
  if (low.length === 0)
    return ok('namespaces', `${names.map((name, i) => `${name}=${values[i]}`).join(' ')}`);
  return warning(
    'namespaces',
    `${low.join(' and ')} is 0`,
    `sysctl -w ${low.map((name) => `${name}=1024`).join(' ')}`,
  );
}

function checkAio(): Check {
  const most = sysctl('fs.aio-max-nr');
  const left = most - sysctl('fs.aio-nr');
  const text = `${left} of ${most} contexts are left; a link or device needs one`;
  if (!(left < ENOUGH_CONTEXTS)) return ok('AIO', text);
  return warning('AIO', text, `sysctl -w fs.aio-max-nr=${most + 65_536}`);
}

/** NaN if the kernel does not have it. */
function sysctl(name: string): number {
  try {
    return Number(readFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, 'latin1'));
  } catch {
    return Number.NaN;
  }
}
