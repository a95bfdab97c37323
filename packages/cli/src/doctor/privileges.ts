import { missingNetworkCapabilities, tunProblem } from '@ivshmem/linux/network';
import { userNamespaceProblem } from '../user-namespace.ts';
import { type Check, failure, ok, warning } from './check.ts';

/** What TAP interfaces and network namespaces need. */
export function checkPrivileges(): Check[] {
  return [checkTun(), checkCapabilities(), checkUserNamespaces()];
}

function checkTun(): Check {
  const problem = tunProblem();
  if (problem === null) return ok('TUN/TAP', '/dev/net/tun can be opened');
  const at = problem.indexOf(': ');
  return failure('TUN/TAP', problem.slice(0, at), problem.slice(at + 2));
}

function checkCapabilities(): Check {
  const missing = missingNetworkCapabilities();
  if (missing.length === 0) return ok('capabilities', 'interfaces and network namespaces can be created');
  return warning(
    'capabilities',
    `without ${missing.join(', ')}: a link cannot create its interface`,
    'run links as root, or as the owner of a TAP: ip tuntap add ivn0 mode tap user USER',
  );
}

function checkUserNamespaces(): Check {
  const problem = userNamespaceProblem();
  if (problem === null) return ok('user namespaces', 'can be created');
  return warning('user namespaces', `cannot be created (${problem.reason})`, problem.remedy);
}
