import { openOutput, printable } from '@ivshmem/linux/process';
import { Supervisor } from '../supervise/supervisor.ts';
import type { SuperviseOptions } from './supervise.ts';

/** Supervises a program. */
export async function runSupervise(
  command: readonly string[],
  { standby = false, descriptors, tries }: SuperviseOptions,
): Promise<number> {
  await using stderr = openOutput(2);
  const log = (text: string) => stderr.write(`${printable(`ivshmem supervise: ${text}`)}\n`);
  return await new Supervisor({ command, standby, descriptors, tries, log }).run();
}
