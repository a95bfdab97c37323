import { openLogStream, runServer } from '@ivshmem/host-server';

// Whoever reads the output may go; the server stays.
process.stderr.on('error', () => {});
const log = openLogStream(1);
process.exitCode = await runServer(process.argv.slice(2), { stdout: log, stderr: process.stderr });
await log.close();
