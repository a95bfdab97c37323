import type { Command } from 'commander';
import type { LoadCommand } from '../program.ts';

const EXAMPLES = `
Examples:
  ivshmem doctor
  ivshmem doctor --json | jq '.checks[] | select(.status != "ok")'
`;

export interface DoctorOptions {
  json?: boolean;
}

export function addDoctorCommand(program: Command, run: (load: LoadCommand) => void): void {
  program
    .command('doctor')
    .description(
      'Checks whether links work on this machine: kernel, permissions, limits, QEMU, and a link that is tried for a second, in a user namespace if this user has no privileges. Prints one line for each check, with the remedy if something is missing. Changes nothing. Exit code 1 if a link cannot work here.',
    )
    .option('--json', 'print one JSON object')
    .option('--verbose', 'print stack traces of errors')
    .addHelpText('after', EXAMPLES)
    .action((options: DoctorOptions) =>
      run(async () => {
        const { doctor } = await import('./run-doctor.ts');
        return () => doctor(options);
      }),
    );
}
