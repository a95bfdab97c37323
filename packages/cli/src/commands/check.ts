import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import { collect, wholeNumber } from '../options/values.ts';
import type { LoadCommand } from '../program.ts';

const SUBJECTS = ['server'] as const;
const FORMATS = ['people', 'tap', 'junit', 'json'] as const;
const LARGEST_SEED = 2 ** 32 - 1;

export type SubjectName = (typeof SUBJECTS)[number];

export interface CheckOptions {
  command?: string;
  socket?: string;
  list?: boolean;
  only?: string[];
  seed?: number;
  format: (typeof FORMATS)[number];
}

const EXAMPLES = `
Examples:
  A host server that the kit starts, with the options that each check needs:
    ivshmem check server --command './my-server -S {socket} {options}'
  A running server without clients:
    ivshmem check server --socket /run/ivshmem.sock --format tap
  What is checked, and one check again with the same random numbers:
    ivshmem check server --list
    ivshmem check server --socket /run/ivshmem.sock --only departure.state --seed 4711
`;

function seed(text: string): number {
  const value = wholeNumber(text);
  if (value > LARGEST_SEED) throw new InvalidArgumentError(`It must be 0 to ${LARGEST_SEED}.`);
  return value;
}

export function addCheckCommand(program: Command, run: (load: LoadCommand) => void): void {
  program
    .command('check')
    .description(
      'Checks whether an implementation of others conforms to ivshmem v2 and protocol 0x0001: plays the other side, and says what was sent, what was expected and what came. Exits with 1 if it violates a MUST.',
    )
    .addArgument(new Argument('<subject>', 'what to check: server, a host server').choices(SUBJECTS))
    .option(
      '--command <command>',
      'start the subject with this shell command: {socket} becomes the path of its socket, {options} the options -l -o -n -V -P (default: at the end)',
    )
    .option('-S, --socket <path>', 'socket of a running server, which has no other clients')
    .option('--only <id>', 'run this check, or the checks of this group; may be repeated', collect)
    .option('--seed <number>', 'seed of the random numbers (default: random)', seed)
    .addOption(
      new Option('--format <format>', 'format of the results').choices(FORMATS).default('people' as const),
    )
    .option('--list', 'print the checks, and run none')
    .addHelpText('after', EXAMPLES)
    .action((subject: SubjectName, options: CheckOptions) =>
      run(async () => {
        const { check } = await import('./run-check.ts');
        return () => check(subject, options);
      }),
    );
}
