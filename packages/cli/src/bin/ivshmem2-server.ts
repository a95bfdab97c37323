import { start } from '../start.ts';

await start('ivshmem2-server', async () => {
  const [{ runServer }, { openOutput }] = await Promise.all([
    import('@ivshmem/host-server/service'),
    import('@ivshmem/linux/process'),
  ]);
  await using stdout = openOutput(1);
  await using stderr = openOutput(2);
  process.exitCode = await runServer(process.argv.slice(2), { stdout, stderr });
});
