import { start } from '../start.ts';

await start('ivshmem', async () => {
  const { main } = await import('../program.ts');
  process.exitCode = await main(process.argv.slice(2));
});
