import { main } from '../program.ts';

// The reader of the output may go; what was started is ended in order all the same.
process.stdout.on('error', () => {});
process.exitCode = await main(process.argv.slice(2));
