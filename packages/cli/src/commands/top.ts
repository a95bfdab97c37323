import { type Command, Option } from 'commander';
import { seconds, wholeNumber } from '../options/values.ts';
import type { LoadCommand } from '../program.ts';
import { COLUMNS, type Column } from '../top/columns.ts';

export interface TopOptions {
  interval: number;
  count?: number;
  sort?: Column;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  ivshmem top
  The busiest links, three times, as text:
    ivshmem top --sort txBits --count 3 | cat
  For a program:
    ivshmem top --json --interval 5 | jq '.rows[] | {part, drops: .dropsBy}'
`;

export function addTopCommand(program: Command, run: (load: LoadCommand) => void): void {
  program
    .command('top')
    .description(
      'Shows the live rates of all interfaces and devices: frames, bits, drops by reason, doorbells, interrupts and wake-ups per second. Finds the processes as `ivshmem status` does. On a terminal, it shows one page that is updated: the keys < and > choose the column to sort by, q ends. Otherwise it prints a table at each interval.',
    )
    .option('--interval <seconds>', 'time between two updates, 1 to 86400', seconds, 1)
    .option('--count <number>', 'end after this many updates (default: at SIGINT or SIGTERM)', wholeNumber)
    .addOption(
      new Option('--sort <column>', 'sort by this column, the largest first (default: by link)').choices([
        ...COLUMNS,
      ]),
    )
    .option('--json', 'print one JSON object at each interval')
    .addHelpText('after', EXAMPLES)
    .action((options: TopOptions) =>
      run(async () => {
        const { runTop } = await import('./run-top.ts');
        return () => runTop(options);
      }),
    );
}
