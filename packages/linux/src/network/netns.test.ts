import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import * as libc from '../libc.ts';
import { missingNetworkPrivilege } from './capabilities.ts';
import { createBridge, getInterface, listInterfaces } from './interface.ts';
import { createNamedNetns, deleteNamedNetns, listNamedNetns } from './named-netns.ts';
import { NETNS_DIRECTORY, Netns } from './netns.ts';

const missing = missingNetworkPrivilege();
const openFds = () => readdirSync('/proc/self/fd').length;
const here = () => readlinkSync('/proc/thread-self/ns/net');

describe.skipIf(missing !== null)(`network namespaces ${missing ?? ''}`, () => {
  it('start with nothing but lo, which is up', () => {
    using netns = Netns.create();
    const interfaces = netns.run(listInterfaces);
    const ours = interfaces.filter(({ name }) => name === 'lo');
    expect(ours).toMatchObject([{ name: 'lo', up: true, carrier: true, kind: null }]);
    expect(interfaces.filter(({ up }) => up)).toEqual(ours);
  });

  it('are separate from one another and from the namespace of the thread', () => {
    const before = here();
    using a = Netns.create();
    using b = Netns.create();
    expect(here()).toBe(before);
    expect(new Set([a.id, b.id, before]).size).toBe(3);
    a.run(() => createBridge('onlya'));
    expect(a.run(() => getInterface('onlya'))).not.toBeNull();
    expect(b.run(() => getInterface('onlya'))).toBeNull();
    expect(getInterface('onlya')).toBeNull();
    expect(here()).toBe(before);
  });

  it('run() returns or throws what its function does, and always returns to the previous namespace', () => {
    const before = here();
    using a = Netns.create();
    using b = Netns.create();
    const nested = a.run(() => [here(), b.run(here), here()]);
    expect(nested).toEqual([a.id, b.id, a.id]);
    expect(() =>
      a.run(() => {
        throw new Error('from within');
      }),
    ).toThrow('from within');
    expect(here()).toBe(before);
    expect(() => a.run(async () => {})).toThrow('must be synchronous');
    expect(here()).toBe(before);
  });

  it('run() never moves the shared threads of the process', () => {
    // In a separate process, whose thread pool has not been used yet.
    const script = `
      const { Netns } = await import(${JSON.stringify(new URL('../../dist/network/index.js', import.meta.url).href)});
      const { readdirSync, readlinkSync } = await import('node:fs');
      const { randomFill } = await import('node:crypto');
      const netns = Netns.create();
      netns.run(() => randomFill(new Uint8Array(1), () => {
        const all = readdirSync('/proc/self/task').map((task) => readlinkSync('/proc/self/task/' + task + '/ns/net'));
        console.log(new Set(all).size);
      }));`;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect(output.trim()).toBe('1');
  });

  it('report it if the thread cannot return', () => {
    // The return uses a descriptor of this process: it fails if the function closes that.
    const script = `
      const { closeFd } = await import(${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)});
      const { Netns } = await import(${JSON.stringify(new URL('../../dist/network/index.js', import.meta.url).href)});
      const { readdirSync, readlinkSync } = await import('node:fs');
      const home = readlinkSync('/proc/thread-self/ns/net');
      const netns = Netns.create();
      try {
        netns.run(() => {
          for (const fd of readdirSync('/proc/self/fd')) {
            let target = '';
            try { target = readlinkSync('/proc/self/fd/' + fd); } catch {}
            if (target === home) closeFd(Number(fd));
          }
          throw new Error('the reason');
        });
      } catch (error) {
        console.log(error.name, error.message, error.errors.map((e) => e.message).join(' | '));
      }`;
    const output = execFileSync(process.execPath, ['--no-warnings', '--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect(output).toMatch(/^AggregateError this thread is stuck .* setns .*EBADF.* \| the reason/);
  });

  it('can be opened by path from another process, and entered by a worker', async () => {
    using netns = Netns.create();
    expect(execFileSync('stat', ['-L', '-c', '%i', netns.path], { encoding: 'utf8' }).trim()).toBe(
      netns.id.replace(/\D/g, ''),
    );
    const source = `
      const { parentPort, workerData } = require('node:worker_threads');
      const { readlinkSync } = require('node:fs');
      import(workerData.module).then(({ Netns }) => {
        using(Netns.open(workerData.path));
        function using(netns) { netns.enter(); netns.close(); }
        parentPort.postMessage(readlinkSync('/proc/thread-self/ns/net'));
      });`;
    const before = here();
    const worker = new Worker(source, {
      eval: true,
      workerData: { module: new URL('../../dist/network/index.js', import.meta.url).href, path: netns.path },
    });
    const seen = await new Promise((resolve, reject) =>
      worker.once('message', resolve).once('error', reject),
    );
    await worker.terminate();
    expect(seen).toBe(netns.id);
    expect(here()).toBe(before);
  });

  it('reject other files', () => {
    const fds = openFds();
    expect(() => Netns.open('ivshmem-none')).toThrow(/ENOENT.*ip netns add ivshmem-none/);
    expect(() => Netns.open('/proc/self/stat')).toThrow('is no network namespace');
    expect(() => Netns.open('/proc/self/ns/mnt')).toThrow('is no network namespace');
    expect(openFds()).toBe(fds);
  });

  it('leave no descriptor and no namespace behind', () => {
    const fds = openFds();
    for (let i = 0; i < 20; i++) {
      const netns = Netns.create();
      netns.run(here);
      netns.duplicate().close();
      netns.close();
      netns.close();
    }
    expect(openFds()).toBe(fds);
  });

  it('can have a name that outlives the handle', () => {
    const name = `ivshmem-test-${process.pid}`;
    const fds = openFds();
    const created = createNamedNetns(name);
    const { id } = created;
    created.close();
    try {
      expect(listNamedNetns()).toContain(name);
      using again = Netns.open(name);
      expect(again.id).toBe(id);
      expect(() => createNamedNetns(name)).toThrow('EEXIST');
      expect(listNamedNetns()).toContain(name);
      using same = Netns.open(name);
      expect(same.id).toBe(id);
    } finally {
      deleteNamedNetns(name);
    }
    expect(listNamedNetns()).not.toContain(name);
    expect(existsSync(`${NETNS_DIRECTORY}/${name}`)).toBe(false);
    expect(() => deleteNamedNetns(name)).toThrow('ENOENT');
    expect(openFds()).toBe(fds);
  });

  it.each(['', '.', '..', 'a/b', 'x'.repeat(256)])('cannot be called "%s"', (name) => {
    expect(() => createNamedNetns(name)).toThrow(RangeError);
    expect(() => deleteNamedNetns(name)).toThrow(RangeError);
  });

  it('name the limit that is reached', () => {
    const module = JSON.stringify(new URL('../../dist/network/index.js', import.meta.url).href);
    const program = `
      const { Netns } = await import(${module});
      try { Netns.create(); } catch (error) { console.log(error.message); }`;
    // The limit of a new user namespace: nothing changes for others.
    const script = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$0" --input-type=module -e "$1"';
    const command = ['--user', '--map-root-user', 'sh', '-c', script, process.execPath, program];
    expect(execFileSync('unshare', command, { encoding: 'utf8' })).toMatch(
      /^unshare network namespace: ENOSPC: no more namespaces are allowed \(user\.max_net_namespaces is 0\): raise/,
    );
  });

  it('name the privilege that is missing', () => {
    // As the user nobody, in a separate process: a dropped capability cannot be regained.
    const script = `
      process.setgid(65534); process.setuid(65534);
      const { Netns, missingNetworkPrivilege } = await import(${JSON.stringify(new URL('../../dist/network/index.js', import.meta.url).href)});
      console.log(missingNetworkPrivilege());
      try { Netns.create(); } catch (error) { console.log(error.message); }`;
    // The module is loaded before privileges are dropped, since the user nobody may not be able to read it.
    const [head, ...rest] = script.trim().split('\n');
    const ordered = [rest[0], head, ...rest.slice(1)].join('\n');
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', ordered], {
      encoding: 'utf8',
    });
    const [privilege, message] = output.trim().split('\n');
    expect(privilege).toMatch(/lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN: run it as root/);
    expect(message).toMatch(/^unshare network namespace: EPERM: .*CAP_SYS_ADMIN/);
  });
});

it('the thread of the tests is in its original namespace', () => {
  expect(here()).toBe(readlinkSync(`/proc/${libc.getpid()}/ns/net`));
});
