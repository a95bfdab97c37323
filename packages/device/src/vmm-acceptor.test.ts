import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { inState, logLine, useDevices } from './device.test-support.ts';
import { Command } from './vfio-user/messages.ts';
import { QEMU_CAPABILITIES } from './vfio-user/vmm-client.test-support.ts';

const fixture = useDevices();

/** A VMM that attaches the device; its child holds the socket, too, until standard input ends. */
const HOLDER = `
  const socket = require('node:net').connect(process.argv[1], () => {
    const payload = Buffer.from('\\0\\0\\0\\0' + process.argv[2] + '\\0');
    const header = Buffer.alloc(16);
    header.writeUInt16LE(1, 2);
    header.writeUInt32LE(16 + payload.length, 4);
    socket.write(Buffer.concat([header, payload]), () => {
      require('node:child_process').spawn('cat', { stdio: ['inherit', 'ignore', 'ignore', socket] });
    });
  });
`;

function holder(): ChildProcess {
  const path = join(fixture.directory, 'vfio-0');
  const argv = ['-e', HOLDER, path, QEMU_CAPABILITIES];
  return spawn(process.execPath, argv, { stdio: ['pipe', 'ignore', 'inherit'] });
}

/** Whether the child of a holder has the socket. */
function isShared(pid: number): boolean {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  return children.some((child) => readFileSync(`/proc/${child}/comm`, 'utf8') === 'cat\n');
}

const version = (vmm: ReturnType<typeof fixture.vmm>) =>
  vmm.post(Command.VERSION, Buffer.from(`\0\0\0\0${QEMU_CAPABILITIES}\0`));

describe('the next VMM', () => {
  it('is rejected while the process of the one before lives', async () => {
    fixture.serve();
    const device = await fixture.device();
    const child = holder();
    await inState(device, 'attached');
    const rejected = logLine(device, new RegExp(`rejected: the device belongs to process ${child.pid};`));
    const vmm = fixture.vmm();
    await rejected;
    expect(vmm.receive(1, [])).toBeNull();
    child.kill('SIGKILL');
    child.stdin!.end();
    await once(child, 'close');
    await inState(device, 'waiting');
  });

  it('waits if that process has been killed and its socket is not closed yet', async () => {
    fixture.serve();
    const device = await fixture.device();
    const child = holder();
    await inState(device, 'attached');
    while (!isShared(child.pid!)) await new Promise((resolve) => setTimeout(resolve, 10));
    child.kill('SIGKILL');
    await once(child, 'exit');
    const vmm = fixture.vmm();
    const id = version(vmm);
    const gone = logLine(device, /is gone; the device waits/);
    expect(device.stats().refused).toBe(0);
    child.stdin!.end();
    await gone;
    expect(vmm.reply(id, Command.VERSION).errno).toBe(0);
    expect(device.stats()).toMatchObject({ attached: 2, refused: 0 });
  });

  it('is attached when the host server is back within that time', async () => {
    const server = fixture.serve();
    const device = await fixture.device();
    server.close();
    await inState(device, 'no-server');
    const vmm = fixture.vmm();
    const id = version(vmm);
    fixture.serve();
    await inState(device, 'attached');
    expect(vmm.reply(id, Command.VERSION).errno).toBe(0);
  });
});
