import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';

it('the library loads neither pino nor prom-client', () => {
  // Both are CommonJS, so Module._cache has their files if they are loaded.
  const script = `
    const loaded = (name) => Object.keys(Module._cache).some((path) => path.includes('/' + name + '/'));
    const { default: Module } = await import('node:module');
    const seen = [];
    for (const path of ['@ivshmem/host-server', '@ivshmem/host-server/service']) {
      await import(path);
      seen.push(['pino', 'prom-client'].map(loaded));
    }
    console.log(JSON.stringify(seen));`;
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
    cwd: import.meta.dirname,
  });
  expect(JSON.parse(output)).toEqual([
    [false, false],
    [true, true],
  ]);
});
