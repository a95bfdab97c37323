import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { Program } from '../support/program.ts';
import { NOBODY } from '../support/unprivileged.ts';
import { describeVm } from './requirements.ts';
import { qemuProgram } from './src/qemu.ts';
import { vmSoftware } from './src/software.ts';

// Debian's libvirtd, as an ordinary user, starts a VM with the lines of docs/qemu.md.

const page = readFileSync(new URL('../../docs/qemu.md', import.meta.url), 'utf8');
const isInstalled = process.env.CI !== undefined || existsSync('/usr/sbin/libvirtd');

/** The user's own libvirtd, with its own directories, and a QEMU that this user can read. */
class Libvirt {
  readonly directory = mkdtempSync(join(tmpdir(), 'ivshmem-libvirt-'));
  readonly emulator = join(this.directory, 'qemu-system-x86_64');
  /** In a mount namespace of its own: the cache with QEMU may be in a home directory that others cannot read. */
  readonly #daemon;
  readonly #closed;

  constructor() {
    const { root } = vmSoftware().tree;
    const at = join(this.directory, 'qemu');
    const program = qemuProgram({ ...vmSoftware().tree, root: at });
    const modules = join(at, 'usr/lib/x86_64-linux-gnu/qemu');
    const script = `#!/bin/sh\nexport QEMU_MODULE_DIR=${modules}\nexec ${program.join(' ')} "$@"\n`;
    writeFileSync(this.emulator, script, { mode: 0o755 });
    for (const name of ['.', 'qemu', 'run', 'config', 'cache']) {
      const path = join(this.directory, name);
      mkdirSync(path, { recursive: true });
      chownSync(path, NOBODY, NOBODY);
    }
    const argv = [
      '--mount',
      'sh',
      '-ec',
      `mount --bind ${root} ${at}; exec "$@"`,
      'sh',
      ...this.#as('libvirtd'),
    ];
    this.#daemon = spawn('unshare', argv, { stdio: 'ignore', env: this.#environment });
    this.#closed = once(this.#daemon, 'close');
  }

  get #environment(): NodeJS.ProcessEnv {
    const at = (name: string) => join(this.directory, name);
    const user = { HOME: this.directory, XDG_RUNTIME_DIR: at('run'), XDG_CONFIG_HOME: at('config') };
    return { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...user, XDG_CACHE_HOME: at('cache') };
  }

  #as(...command: string[]): string[] {
    return ['setpriv', '--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups', '--', ...command];
  }

  /** Resolves when libvirtd accepts connections. */
  async ready(): Promise<void> {
    const deadline = performance.now() + 60_000;
    while (!existsSync(join(this.directory, 'run/libvirt/libvirt-sock'))) {
      if (this.#daemon.exitCode !== null) throw new Error(`libvirtd has ended: ${this.#daemon.exitCode}`);
      if (performance.now() > deadline) throw new Error('libvirtd does not accept connections');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async virsh(...argv: string[]): Promise<string> {
    const [file, ...rest] = this.#as('virsh', '-c', 'qemu:///session', ...argv);
    return (await promisify(execFile)(file!, rest, { env: this.#environment })).stdout;
  }

  async close(): Promise<void> {
    this.#daemon.kill();
    await this.#closed;
    rmSync(this.directory, { recursive: true });
  }
}

describeVm('libvirt', () => {
  it.runIf(isInstalled)('starts a VM with the device, and ends it', async () => {
    const libvirt = new Libvirt();
    const { directory } = libvirt;
    const [server, socket] = [join(directory, 'server.sock'), join(directory, 'vm1.sock')];
    const programs: Program[] = [];
    const start = (...argv: string[]) => {
      programs.push(new Program([...argv, '--json']));
      return programs.at(-1)!;
    };
    try {
      await start('server', '-F', '-S', server, '-l', '4M', '-o', '1M', '-P', '1').line(
        ({ type }) => type === 'listening',
      );
      const access = ['--mode', '660', '--group', `${NOBODY}`];
      const device = start('device', '--socket', server, '--vfio-user', socket, ...access);
      await device.line(({ event, state }) => event === 'state' && state === 'waiting');
      const [, options] = /```xml\n<domain .*?(<qemu:commandline>.*?<\/qemu:commandline>)/s.exec(page)!;
      const [domain] = /<domain .*?>/.exec(page)!;
      const definition = join(directory, 'vm1.xml');
      writeFileSync(
        definition,
        `${domain!.replace("'kvm'", "'qemu'")}
          <name>vm1</name><memory unit='MiB'>64</memory>
          <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
          <devices><emulator>${libvirt.emulator}</emulator></devices>
          ${options!.replace('/run/ivshmem/vm1.sock', socket)}
        </domain>`,
      );
      await libvirt.ready();
      await libvirt.virsh('define', definition);
      await libvirt.virsh('start', 'vm1');
      await device.line(({ event, state }) => event === 'state' && state === 'attached');
      // The firmware has found it, and placed its memory.
      const deadline = performance.now() + 60_000;
      let found: string;
      do {
        const pci = await libvirt.virsh('qemu-monitor-command', 'vm1', '--hmp', 'info pci');
        found = /PCI device 110a:4106.*?BAR2: (.*?)\n/s.exec(pci.replaceAll('\r', ''))?.[1] ?? '';
      } while (!/at 0x[0-9a-f]*[1-9a-f]/.test(found) && performance.now() < deadline);
      expect(found).toMatch(/^64 bit prefetchable memory at 0x\w+ \[0x\w+\]$/);
      const from = device.lines.length;
      await libvirt.virsh('destroy', 'vm1');
      await device.line(({ event, state }) => event === 'state' && state === 'waiting', from);
      await libvirt.virsh('undefine', 'vm1');
    } finally {
      for (const program of programs.reverse()) await program.stop();
      await libvirt.close();
    }
  });
});
