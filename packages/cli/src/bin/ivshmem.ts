import { main } from '../program.ts';

// Whoever reads the output may go; what was started is ended in order all the same.
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});
process.exitCode = await main(process.argv.slice(2));
