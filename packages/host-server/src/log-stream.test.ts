import { duplicateFd, UnixSocket } from '@ivshmem/linux';
import { describe, expect, it } from 'vitest';
import { openLogStream } from './log-stream.ts';

/** Everything there is to read, which may be more than a socket holds at a time. */
async function readAll(socket: UnixSocket): Promise<string> {
  const chunks: Buffer[] = [];
  const buffer = new Uint8Array(65536);
  for (;;) {
    const length = socket.receive(buffer, []);
    if (length === 0) return Buffer.concat(chunks).toString();
    if (length > 0) chunks.push(Buffer.from(buffer.subarray(0, length)));
    else await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

describe('the log stream', () => {
  const pair = () => {
    const [near, far] = UnixSocket.pair();
    const stream = openLogStream(duplicateFd(near.fd));
    near.close();
    return { stream, far };
  };

  it('has written everything when it is closed', async () => {
    const { stream, far } = pair();
    const lines = Array.from({ length: 5000 }, (_, i) => `line ${i}: ${'x'.repeat(100)}\n`);
    for (const line of lines) stream.write(line);
    const [text] = await Promise.all([readAll(far), stream.close()]);
    expect(text).toBe(lines.join(''));
    far.close();
  });

  it('closes although nobody reads, and rests then', async () => {
    const { stream, far } = pair();
    for (let i = 0; i < 500; i++) stream.write(`${'x'.repeat(1000)}\n`);
    await stream.close();
    const before = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 200));
    const { user, system } = process.cpuUsage(before);
    expect(user + system).toBeLessThan(150_000);
    far.close();
  });

  it('closes although its reader is gone', async () => {
    const { stream, far } = pair();
    far.close();
    stream.write('to nobody\n');
    await stream.close();
  });
});
