import { missingNetworkPrivilege } from '@ivshmem/linux/network';
import { describe } from 'vitest';

/**
 * `describe` for tests that this machine may lack something for: if `missing` names it, they are skipped, and say so
 * in their name. In continuous integration (CI is set) nothing may be missing: they run, and fail.
 */
export function describeWhere(missing: string | null, name: string, tests: () => void): void {
  if (missing === null || process.env.CI !== undefined) describe(name, tests);
  else describe.skip(`${name} (skipped: ${missing})`, tests);
}

/** `describe` for tests that make TAP interfaces and network namespaces. */
export function describeNetwork(name: string, tests: () => void): void {
  describeWhere(missingNetworkPrivilege(), name, tests);
}
