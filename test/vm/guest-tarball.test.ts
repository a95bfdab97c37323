import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createLink, type Link } from '@ivshmem/net';
import { guestTarball } from '@ivshmem/packaging/guest-tarball';
import { filter, firstValueFrom } from 'rxjs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeVm } from './requirements.ts';
import type { Guest } from './src/guest.ts';
import { guestProgram, VmRig } from './src/rig.ts';

// The tarball for guests, in a guest that is as small as one that Yocto builds: a kernel, busybox, Node.js.

const workspace = fileURLToPath(new URL('../..', import.meta.url));
const page = readFileSync(join(workspace, 'docs/install.md'), 'utf8');
const TAP = `ivtar${process.pid % 100_000}`;
const ROUNDS = 2;
/** How long a link may take to start in an emulated guest on a busy machine, in ms. */
const PATIENCE = 240_000;

/** A script of the page, by the name in the comment above it, in one line. */
const documented = (name: string): string =>
  new RegExp(`<!-- run: ${name} -->\n\`\`\`sh\n(.*?)^\`\`\``, 'ms')
    .exec(page)![1]!
    .trim()
    .replaceAll('\n', '; ');

let directory: string;
let rig: VmRig;
let guest: Guest;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-tarball-'));
  const disk = await guestTarball(workspace, directory, '0.1.0', new Date(0));
  const { size } = statSync(disk);
  truncateSync(disk, Math.ceil(size / 512) * 512);
  rig = await VmRig.start({ guests: 1, disk });
  guest = rig.guests[0]!;
  await guest.run(`head -c ${size} /dev/vda > /tmp/ivshmem-0.1.0-linux.tar.gz`);
  await guest.run(
    `cd /tmp; mkdir -p /opt; ln -s /bin/env /usr/bin/env; ${documented('tarball').replaceAll('VERSION', '0.1.0')}`,
  );
});

afterAll(async () => {
  await rig?.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Processor time that the guest has used on the host, in ms: the other load of the machine hardly matters for it. */
function processorTime(): number {
  const [user, system] = readFileSync(`/proc/${guest.qemu.pid}/stat`, 'utf8')
    .split(') ')[1]!
    .split(' ')
    .slice(11);
  return (Number(user) + Number(system)) * 10;
}

/** Starts a link and stops it; resolves with the processor time until it is up. */
async function timeToStart(command: string): Promise<number> {
  const begin = processorTime();
  const job = guest.job(`${command} net --json --pci auto --tap ivn0`);
  await job.output.wait('start', ({ event }) => event === 'up', 0, PATIENCE);
  const time = processorTime() - begin;
  await job.kill('TERM');
  expect(await job.exited).toBe(0);
  return time;
}

describeVm('the tarball for guests', () => {
  it('runs as the page says, without npm, and links the guest with the host', async () => {
    expect(await guest.run('ivshmem --version')).toBe('0.1.0\n');
    const link: Link = await createLink({
      port: { type: 'server', socketPath: rig.socket },
      tap: TAP,
      addresses: ['198.18.78.1/30'],
    });
    try {
      const job = guest.job('exec ivshmem net --json --pci auto --tap ivn0 --address 198.18.78.2/30');
      await firstValueFrom(link.state$.pipe(filter(({ carrier }) => carrier)));
      await guest.run('until ping -c 1 -W 1 198.18.78.1; do true; done');
      expect(await guest.run('ping -c 5 -i 0.1 -W 5 198.18.78.1')).toContain(' 0% packet loss');
      await job.kill('TERM');
      expect(await job.exited).toBe(0);
    } finally {
      await link.close();
    }
  });

  it('starts at least twice as fast as packages of npm', async () => {
    const times = { packages: [] as number[], tarball: [] as number[] };
    for (let round = 0; round < ROUNDS; round++) {
      times.packages.push(await timeToStart(guestProgram('cli/dist/bin/ivshmem.js')));
      times.tarball.push(await timeToStart('exec ivshmem'));
    }
    console.log(`processor time until a link is up, in ms: ${JSON.stringify(times)}`);
    expect(Math.min(...times.tarball) * 2).toBeLessThan(Math.min(...times.packages));
  }, 900_000);
});
