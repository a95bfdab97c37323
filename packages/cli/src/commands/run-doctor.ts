import { openOutput, printable } from '@ivshmem/linux/process';
import type { Check } from '../doctor/check.ts';
import { checkLimits } from '../doctor/limits.ts';
import { checkMachine } from '../doctor/machine.ts';
import { checkPrivileges } from '../doctor/privileges.ts';
import { checkVirtualMachines } from '../doctor/qemu.ts';
import { tryInterfaces, tryRings } from '../doctor/trial.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit.ts';
import { jsonLine } from '../output/json-line.ts';
import { openStopSignal } from '../stop-signal.ts';
import { isInsideUserNamespace } from '../user-namespace.ts';
import type { DoctorOptions } from './doctor.ts';

/** Width of the first two columns. */
const STATUS = 'warning'.length;
const NAME = 'user namespaces'.length;

/** Checks this machine. Inside a user namespace, where this command started itself, it only tries a link. */
export async function doctor({ json = false }: DoctorOptions): Promise<number> {
  const isInside = isInsideUserNamespace();
  using stopping = openStopSignal(isInside);
  await using output = openOutput(1);
  const checks: Check[] = [];
  const isJson = json || isInside;
  const report = (found: readonly Check[]) => {
    checks.push(...found);
    if (!isJson) for (const check of found) for (const line of linesOf(check)) output.write(`${line}\n`);
  };
  if (!isInside) {
    report(checkMachine());
    report(checkPrivileges());
    report(checkLimits());
    report(await checkVirtualMachines());
  }
  try {
    if (!isInside) report([await tryRings(stopping.signal)]);
    report([await tryInterfaces(stopping.signal)]);
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
    return EXIT_FAILURE;
  }
  const failures = checks.filter(({ status }) => status === 'failure').length;
  if (isJson) output.write(jsonLine({ ok: failures === 0, checks }));
  else output.write(`\n${failures === 0 ? 'Links work here.' : 'A link cannot work here.'}\n`);
  return failures === 0 ? EXIT_OK : EXIT_FAILURE;
}

function linesOf({ name, status, text, remedy }: Check): string[] {
  const line = `${status.padEnd(STATUS)}  ${name.padEnd(NAME)}  ${printable(text)}`;
  const indent = ' '.repeat(STATUS + NAME + 4);
  return remedy === undefined ? [line] : [line, `${indent}${printable(remedy)}`];
}
