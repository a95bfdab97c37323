import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd, createEventFd, UnixSocket } from '@ivshmem/linux';
import { expect, it } from 'vitest';
import type { HostServerEvent } from './events.ts';
import { createHostServer } from './host-server.ts';

function prlimit(...options: string[]): string {
  return execFileSync('prlimit', ['--pid', String(process.pid), ...options], { encoding: 'utf8' }).trim();
}

it('lets a client wait for descriptors, refuses it where they are too few, and lets in the next one', async () => {
  const directory = mkdtempSync('/tmp/descriptor-exhaustion-');
  const socketPath = join(directory, 'socket');
  const soft = prlimit('--nofile', '--raw', '--noheadings', '-o', 'SOFT');
  const events: HostServerEvent[] = [];
  let wake = () => {};
  const occurrence = async (type: HostServerEvent['type']) => {
    for (;;) {
      const found = events.findIndex((event) => event.type === type);
      if (found !== -1) return events.splice(found, 1)[0];
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  const log = (event: HostServerEvent) => {
    events.push(event);
    wake();
  };
  const server = createHostServer({ socketPath, vectors: 4, log });
  const first = UnixSocket.connect(socketPath);
  const fillers: number[] = [];
  prlimit('--nofile=200:');
  try {
    expect(() => {
      for (;;) fillers.push(createEventFd());
    }).toThrow('EMFILE');
    expect(await occurrence('warning')).toMatchObject({ text: expect.stringContaining('accept4') });
    for (const fd of fillers.splice(0, 3)) closeFd(fd);
    expect(await occurrence('refused')).toMatchObject({ reason: expect.stringContaining('EMFILE') });
    expect(first.receive(new Uint8Array(1), [])).toBe(0);
    const second = UnixSocket.connect(socketPath);
    for (const fd of fillers.splice(0)) closeFd(fd);
    expect(await occurrence('peer-joined')).toMatchObject({ peer: { id: 0 } });
    const open = readdirSync('/proc/self/fd').length;
    server.close();
    // The memory, the listener, the connection and its four eventfds.
    expect(readdirSync('/proc/self/fd').length).toBe(open - 7);
    second.close();
  } finally {
    for (const fd of fillers) closeFd(fd);
    prlimit(`--nofile=${soft}:`);
    first.close();
    server.close();
    rmSync(directory, { recursive: true });
  }
});
