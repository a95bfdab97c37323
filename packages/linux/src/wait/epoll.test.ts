import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const wait = JSON.stringify(new URL('../../dist/wait/index.js', import.meta.url).href);

it('reports, to a process that was stopped and continued, what became ready in the meantime', async () => {
  const program = `
    import { writeSync } from 'node:fs';
    import { EPOLLIN, Epoll } from ${wait};
    const epoll = new Epoll();
    epoll.add(0, EPOLLIN, () => {});
    writeSync(1, 'waits');
    writeSync(1, String(epoll.wait(-1)));`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const state = () => readFileSync(`/proc/${child.pid}/stat`, 'latin1').replace(/^.*\) (.).*$/s, '$1');
  const until = async (expected: string) => {
    while (state() !== expected) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  try {
    expect(String((await once(child.stdout, 'data'))[0])).toBe('waits');
    await until('S');
    child.kill('SIGSTOP');
    await until('T');
    child.stdin.write('x');
    const answer = once(child.stdout, 'data');
    child.kill('SIGCONT');
    expect(String((await answer)[0])).toBe('1');
  } finally {
    child.kill('SIGKILL');
  }
});
