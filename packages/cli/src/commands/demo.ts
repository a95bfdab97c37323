import type { Command } from 'commander';
import type { LoadCommand } from '../program.ts';

const EXAMPLES = `
Examples:
  ivshmem demo
  ivshmem demo --json | tail -1
`;

export interface DemoOptions {
  json?: boolean;
  offload: boolean;
}

export function addDemoCommand(program: Command, run: (load: LoadCommand) => void): void {
  program
    .command('demo')
    .description(
      'Starts a host server and a link between two new network namespaces, with one process for each end. Shows the handshake, ping, TCP throughput, and recovery from a crash. Takes about half a minute and removes everything it created. Needs root or user namespaces.',
    )
    .option('--json', 'print only the results, as one JSON object')
    .option('--no-offload', 'measure without checksum and segmentation offload')
    .option('--verbose', 'print stack traces of errors')
    .addHelpText('after', EXAMPLES)
    .action((options: DemoOptions) =>
      run(async () => {
        const { demo } = await import('./run-demo.ts');
        return () => demo(options);
      }),
    );
}
