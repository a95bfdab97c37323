import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { check } from '../errors.ts';
import { setNonBlocking } from '../fd.ts';
import * as libc from '../libc.ts';
import { UnixSocket } from '../socket/unix-socket.ts';
import { openOutput } from './output.ts';

describe('output', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync('/tmp/ivshmem-output-');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('writes everything, in order, before close() resolves', async () => {
    const path = join(directory, 'log');
    const fd = openSync(path, 'w');
    const stream = openOutput(fd);
    const lines = Array.from({ length: 5000 }, (_, i) => `line ${i}\n`);
    for (const line of lines) stream.write(line);
    await stream.close();
    stream.write('too late\n');
    await stream.close();
    closeSync(fd);
    expect(readFileSync(path, 'utf8')).toBe(lines.join(''));
  });

  /** The two ends of a pipe with a name; opened for both, since either alone would wait for the other. */
  function pipe() {
    const path = join(directory, 'pipe');
    execFileSync('mkfifo', [path]);
    const reader = openSync(path, 'r+');
    return { reader, writer: openSync(path, 'w') };
  }

  /** All that can be read from a pipe now. */
  function drain(reader: number): string {
    const into = Buffer.alloc(1 << 16);
    let text = '';
    setNonBlocking(reader);
    try {
      for (;;) text += into.toString('utf8', 0, readSync(reader, into));
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN');
    }
    return text;
  }

  it('does not wait for a reader that does not read, and reports what it drops when that reads again', async () => {
    const { reader, writer } = pipe();
    const stream = openOutput(writer);
    const line = `${'x'.repeat(99)}\n`;
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 100_000; i++) stream.write(line);
    expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20);
    let text = drain(reader);
    while (!text.endsWith('output not read\n')) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      text += drain(reader);
    }
    stream.write('after the gap\n');
    await stream.close();
    text += drain(reader);
    const lines = text.trimEnd().split('\n');
    const complete = lines.filter((found) => found === line.trimEnd()).length;
    expect(lines.slice(complete)).toEqual([
      `${100_000 - complete} lines dropped: output not read`,
      'after the gap',
    ]);
    // 1 MiB, and what the pipe holds.
    expect(complete).toBeGreaterThan(10_000);
    closeSync(writer);
    closeSync(reader);
  });

  it('does not wait for a terminal that Ctrl-S has stopped, and goes on after Ctrl-Q', async () => {
    const { master, terminal } = openTerminal();
    const stream = openOutput(terminal);
    stream.write('before\n');
    writeSync(master, '\x13');
    for (let i = 0; i < 1000; i++) stream.write(`${'x'.repeat(99)}\n`);
    writeSync(master, '\x11');
    let text = '';
    while (text.split('\n').length < 1002) {
      text += drain(master);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(text).toMatch(/before\r\n/);
    writeSync(master, '\x13');
    for (let i = 0; i < 1000; i++) stream.write(`${'y'.repeat(99)}\n`);
    await stream.close();
    closeSync(terminal);
    closeSync(master);
  });

  it('leaves the open file as it is, which other processes have, too', () => {
    const { reader, writer } = pipe();
    const flags = () => readFileSync(`/proc/self/fdinfo/${writer}`, 'utf8').split('\n')[1];
    const before = flags();
    const stream = openOutput(writer);
    stream.write('x\n');
    expect(flags()).toBe(before);
    closeSync(writer);
    closeSync(reader);
    return stream.close();
  });

  it('ends within seconds although nothing reads', async () => {
    const { reader, writer } = pipe();
    const stream = openOutput(writer);
    stream.write('z'.repeat(500_000));
    const before = performance.now();
    await stream.close();
    expect(performance.now() - before).toBeGreaterThan(900);
    closeSync(writer);
    closeSync(reader);
  });

  it('writes to a socket, such as that of a journal, without waiting', async () => {
    const [a, b] = UnixSocket.pair();
    const stream = openOutput(a.fd);
    for (let i = 0; i < 50_000; i++) stream.write(`line ${i}\n`);
    const into = Buffer.alloc(1 << 16);
    expect(b.receive(into, [])).toBeGreaterThan(1000);
    expect(into.toString('utf8', 0, 14)).toBe('line 0\nline 1\n');
    b.close();
    await stream.close();
    a.close();
  });

  it('continues when a reader reads late', async () => {
    const { reader, writer } = pipe();
    const stream = openOutput(writer);
    const text = 'y'.repeat(300_000);
    stream.write(text);
    const closed = stream.close();
    const child = spawn('head', ['-c', String(text.length)], { stdio: [reader, 'pipe', 'inherit'] });
    let received = 0;
    child.stdout!.on('data', (chunk) => {
      received += chunk.length;
    });
    await Promise.all([closed, once(child, 'close')]);
    expect(received).toBe(text.length);
    closeSync(writer);
    closeSync(reader);
  });

  it('causes no error after the reader has closed', async () => {
    const { reader, writer } = pipe();
    closeSync(reader);
    const stream = openOutput(writer);
    stream.write('x\n');
    await stream.close();
    stream.write('y\n');
    closeSync(writer);
  });
});

/** A pseudo-terminal: the user's side and the program's side. */
function openTerminal(): { master: number; terminal: number } {
  const [TIOCGPTN, TIOCSPTLCK] = [0x80045430, 0x40045431];
  const flags = constants.O_RDWR | constants.O_NOCTTY;
  const master = openSync('/dev/ptmx', flags);
  const word = new Uint32Array(1);
  check(libc.ioctl(master, TIOCSPTLCK, 'void *', new Uint8Array(word.buffer)), 'ioctl TIOCSPTLCK', 'ptmx');
  check(libc.ioctl(master, TIOCGPTN, 'void *', new Uint8Array(word.buffer)), 'ioctl TIOCGPTN', 'ptmx');
  return { master, terminal: openSync(`/dev/pts/${word[0]}`, flags) };
}
