import { runServer } from '@ivshmem/host-server';
import { openOutput } from '@ivshmem/linux';

await using stdout = openOutput(1);
await using stderr = openOutput(2);
process.exitCode = await runServer(process.argv.slice(2), { stdout, stderr });
