import { readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { PAGE_SIZE } from '@ivshmem/linux/memory';
import { type Check, failure, ok, warning } from './check.ts';

const OLDEST_KERNEL = [5, 10] as const;
const ARCHITECTURES = ['x64', 'arm64'];

/** Kernel, Node.js and memory. */
export function checkMachine(): Check[] {
  return [checkKernel(release(), process.arch), checkRuntime(), checkPages(PAGE_SIZE), checkHugePages()];
}

export function checkKernel(version: string, architecture: string): Check {
  const text = `Linux ${version} on ${architecture}`;
  if (isOlder(version, OLDEST_KERNEL)) {
    return failure('kernel', text, `install Linux ${OLDEST_KERNEL.join('.')} or later`);
  }
  if (ARCHITECTURES.includes(architecture)) return ok('kernel', text);
  return warning('kernel', text, `use one of ${ARCHITECTURES.join(', ')}: others are not supported`);
}

/** Whether a version such as `10.0.2 (Debian)` is older than [major, minor]. One without numbers is not. */
export function isOlder(version: string, [oldestMajor, oldestMinor]: readonly [number, number]): boolean {
  const [major = 0, minor = 0] = version.match(/\d+/g)?.map(Number) ?? [oldestMajor, oldestMinor];
  return major < oldestMajor || (major === oldestMajor && minor < oldestMinor);
}

/** That this runs at all shows both: the command ends with a line of its own otherwise. */
function checkRuntime(): Check {
  return ok('Node.js', `${process.version}, koffi works`);
}

export function checkPages(size: number): Check {
  const text = `pages of ${size} bytes`;
  return ok('memory', size === 4096 ? text : `${text}: sizes of sections must be multiples of that`);
}

function checkHugePages(): Check {
  const pool = '/sys/kernel/mm/hugepages';
  const count = (kind: string, file: string) => Number(readFileSync(`${pool}/${kind}/${file}`, 'latin1'));
  let kinds: string[];
  try {
    kinds = readdirSync(pool).filter((kind) => count(kind, 'nr_hugepages') > 0);
  } catch {
    kinds = [];
  }
  if (kinds.length === 0)
    return ok('huge pages', 'none are reserved; only a server with huge pages needs them');
  const counts = kinds.map((kind) => {
    const free = count(kind, 'free_hugepages') - count(kind, 'resv_hugepages');
    return `${kind.replace('hugepages-', '')}: ${free} of ${count(kind, 'nr_hugepages')} free`;
  });
  return ok('huge pages', counts.join(', '));
}
