import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { hasProcessEnded } from './process-state.ts';

it('detects that a process has ended, whether or not its parent has waited for it', async () => {
  expect(hasProcessEnded(process.pid)).toBe(false);
  expect(hasProcessEnded(0)).toBe(false);
  // A shell is replaced by a program that does not wait for the child it inherits.
  const shell = spawn('sh', ['-c', 'true & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
  const [line] = await once(shell.stdout, 'data');
  const zombie = Number(line);
  while (!hasProcessEnded(zombie)) await new Promise((resolve) => setTimeout(resolve, 5));
  shell.kill('SIGKILL');
  await once(shell, 'close');
  expect(hasProcessEnded(shell.pid!)).toBe(true);
});
