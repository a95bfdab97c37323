import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { Netns } from '@ivshmem/linux/network';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeVm } from './requirements.ts';
import { Guest, type Job } from './src/guest.ts';
import { HostProgram } from './src/host-program.ts';
import { ivshmemDevice } from './src/qemu.ts';
import { isCarrierOff, isCarrierOn, startLink } from './src/rig.ts';
import { vmSoftware } from './src/software.ts';
import { removeDirectory, temporaryDirectory } from './src/temporary-directory.ts';
import { randomFile, send } from './src/transfer.ts';

// One guest, without an IOMMU, and a TAP on the host: `ivshmem vm` outside, `ivshmem net --pci` inside.

const PORT = 5000;

let directory: string;
let netns: Netns;
let vm: HostProgram;
let guest: Guest;
let link: Job;

beforeAll(async () => {
  const software = vmSoftware();
  directory = temporaryDirectory();
  netns = Netns.create();
  const socket = join(directory, 'device');
  const tap = ['--tap', 'ivn0', '--netns', netns.path, '--address', '10.78.0.1/24'];
  // What a process that is killed leaves behind goes with the folder.
  const env = { TMPDIR: directory };
  vm = HostProgram.ivshmem(['vm', '--json', '--vfio-user', socket, ...tap], env);
  await vm.output.wait('start', ({ part, event }) => part === 'link' && event === 'up');
  guest = await Guest.start(software, { name: 'a', devices: ivshmemDevice(socket), iommu: false });
  link = startLink(guest, '10.78.0.2/24');
  await link.output.wait('carrier', isCarrierOn);
});
afterAll(async () => {
  await guest?.stop();
  await vm?.stop('SIGKILL');
  netns?.close();
  if (directory !== undefined) removeDirectory(directory);
});

describeVm('a link between a guest and a TAP on the host', () => {
  it('carries ping, and TCP with the same checksum at both ends, without interrupts in the guest', async () => {
    await guest.run('until ping -c 1 -W 1 10.78.0.1; do true; done');
    expect(await guest.run('ping -c 5 -i 0.1 -W 5 10.78.0.1')).toContain(' 0% packet loss');

    const server = createServer({ allowHalfOpen: true });
    netns.run(() => server.listen(PORT));
    const sent = await randomFile(guest, '/tmp/sent', 4 * 2 ** 20);
    const sender = send(guest, 'cat /tmp/sent', '10.78.0.1', PORT);
    const [connection] = (await once(server, 'connection')) as [Socket];
    const hash = createHash('sha256');
    for await (const chunk of connection) hash.update(chunk);
    expect(hash.digest('hex')).toBe(sent);
    connection.end();
    server.close();
    expect(await sender.exited).toBe(0);
  });

  it('is down, but the guest lives, when the process behind the device is killed', async () => {
    const from = link.output.all.length;
    // QEMU 11.1 aborts where the guest accesses a register before QEMU has noticed.
    await link.kill('STOP');
    await vm.stop('SIGKILL');
    await guest.qemu.errors.wait('end of the device', (line) => /EOF/.test(line));
    await link.kill('CONT');
    await link.output.wait('loss of the carrier', isCarrierOff, from);
    await link.output.wait(
      'log line',
      ({ event, text }) => event === 'log' && /no longer answers/.test(text),
      from,
    );
    expect((await guest.run('echo alive')).trim()).toBe('alive');
    await link.kill('TERM');
    expect(await link.exited).toBe(0);
  });
});
