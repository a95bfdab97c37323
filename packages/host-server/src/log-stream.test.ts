import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openLogStream } from './log-stream.ts';

describe('log stream', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync('/tmp/log-stream-');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('writes everything, in order, before close() is fulfilled', async () => {
    const path = join(directory, 'log');
    const fd = openSync(path, 'w');
    const stream = openLogStream(fd);
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

  it('does not wait for a reader that does not read, and loses what does not fit', async () => {
    const { reader, writer } = pipe();
    const stream = openLogStream(writer);
    const line = `${'x'.repeat(99)}\n`;
    for (let i = 0; i < 50_000; i++) stream.write(line);
    await stream.close();
    closeSync(writer);
    const into = Buffer.alloc(1 << 16);
    expect(readSync(reader, into)).toBeGreaterThan(1000);
    expect(into.toString('utf8', 0, 100)).toBe(line);
    closeSync(reader);
  });

  it('goes on with a reader that reads late', async () => {
    const { reader, writer } = pipe();
    const stream = openLogStream(writer);
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

  it('is no error where nobody reads any more', async () => {
    const { reader, writer } = pipe();
    closeSync(reader);
    const stream = openLogStream(writer);
    stream.write('x\n');
    await stream.close();
    stream.write('y\n');
    closeSync(writer);
  });
});
